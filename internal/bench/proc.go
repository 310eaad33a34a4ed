package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is USER_HZ, in which the kernel counts a process's time for /proc; 100 on every Linux.
const clockTicks = 100

// cpuSeconds returns the time that a process and its children that have ended took, in user and system mode.
func cpuSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	ticks := 0
	for i := 11; i < 15 && i < len(f); i++ { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(string(f[i]))
		ticks += n
	}
	return float64(ticks) / clockTicks
}

// procField returns a number from a file of a process, 0 if it is not there.
func procField(pid int, file, name string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// rss and peakRSS return resident memory in bytes.
func rss(pid int) int64     { return procField(pid, "status", "VmRSS") << 10 }
func peakRSS(pid int) int64 { return procField(pid, "status", "VmHWM") << 10 }

// resetPeak has peakRSS begin anew.
func resetPeak(pid int) { _ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) }

// settle waits until a process has nothing left to do, at most for the patience.
func settle(pid int, patience time.Duration) {
	const tick = 200 * time.Millisecond
	before := cpuSeconds(pid)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		time.Sleep(tick)
		now := cpuSeconds(pid)
		if now-before <= 1.5/clockTicks {
			return
		}
		before = now
	}
}

// quiet is settle for what happens on timers too, and for writes: for 8 seconds there
// must be none that matter. It returns when there were.
func quiet(pid int, patience time.Duration) {
	const little, calm = 64 << 10, 8
	cpu, wrote := cpuSeconds(pid), procField(pid, "io", "write_bytes")
	for still, deadline := 0, time.Now().Add(patience); still < calm && time.Now().Before(deadline); still++ {
		time.Sleep(time.Second)
		c, w := cpuSeconds(pid), procField(pid, "io", "write_bytes")
		if c-cpu > 0.05 || w-wrote > little {
			still = -1
		}
		cpu, wrote = c, w
	}
}
