package fusefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A program and the process that serves its file system take turns: while one works the other waits, and so
// does its processor. On a virtual machine an idle processor halts, and to wake it goes by way of the host,
// which takes longer than most requests. Linux therefore lets guests poll for up to 200 µs before they halt
// (Documentation/virt/guest-halt-polling.rst), but some are set up not to. There the mount asks for it itself, with a
// request to PM QoS that processors wake at once (Documentation/power/pm_qos_interface.rst), as long as
// requests follow each other closely. The kernel drops what was asked when the process ends, however it ends.

// IdlePolling says whether idle processors poll instead of halting while a mount is busy.
type IdlePolling int

const (
	// IdlePollAuto has them do so on virtual machines of few processors whose kernel could, but does not by itself.
	IdlePollAuto IdlePolling = iota
	IdlePollOn
	IdlePollOff
)

var idlePollNames = [...]string{IdlePollAuto: "auto", IdlePollOn: "on", IdlePollOff: "off"}

// MarshalText returns "auto", "on" or "off".
func (i IdlePolling) MarshalText() ([]byte, error) { return []byte(idlePollNames[i]), nil }

// UnmarshalText reads what MarshalText returns.
func (i *IdlePolling) UnmarshalText(text []byte) error {
	at := slices.Index(idlePollNames[:], string(text))
	if at < 0 {
		return errors.New("neither auto nor on nor off")
	}
	*i = IdlePolling(at)
	return nil
}

const (
	// A mount is busy from the busyRequests-th request within busyTime on, until fewer come in as much time.
	busyRequests = 16
	busyTime     = 10 * time.Millisecond

	// maxIdlePollers is how many processors may poll without anybody having asked for it: all do.
	maxIdlePollers = 8

	latencyDevice = "/dev/cpu_dma_latency"
)

// What is written to latencyDevice: how many microseconds it may take to wake.
var (
	wakeAtOnce  = binary.NativeEndian.AppendUint32(nil, 0)
	wakeAsUsual = binary.NativeEndian.AppendUint32(nil, 1<<32-1) // -1: no wish
)

// idlePoll has idle processors poll while requests follow each other closely. A nil one does nothing.
type idlePoll struct {
	start    time.Time
	requests atomic.Uint64
	last     atomic.Int64 // when the requests were last a multiple of busyRequests, since start
	asked    atomic.Bool

	mu     sync.Mutex
	device io.WriteCloser // nil once closed
	seen   uint64         // requests when they were last looked at
	timer  *time.Timer
}

// openIdlePoll returns nil where idle processors are left alone.
func openIdlePoll(want IdlePolling) (*idlePoll, error) {
	if want == IdlePollOff || want == IdlePollAuto && !pollingPays("/sys") {
		return nil, nil
	}
	dev, err := os.OpenFile(latencyDevice, os.O_WRONLY, 0)
	if want == IdlePollAuto && (errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("have idle processors poll: %w", err)
	}
	return newIdlePoll(dev), nil
}

func newIdlePoll(device io.WriteCloser) *idlePoll {
	return &idlePoll{start: time.Now(), device: device}
}

// request counts a request. It is cheap.
func (p *idlePoll) request() {
	if p == nil || p.requests.Add(1)%busyRequests != 0 || p.asked.Load() {
		return
	}
	now := int64(time.Since(p.start))
	if now-p.last.Swap(now) <= int64(busyTime) && p.asked.CompareAndSwap(false, true) {
		p.ask()
	}
}

func (p *idlePoll) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.device == nil {
		return
	}
	p.seen = p.requests.Load()
	_, _ = p.device.Write(wakeAtOnce) // if it fails, they halt
	p.timer = time.AfterFunc(busyTime, p.look)
}

// look withdraws what was asked once the requests have become few.
func (p *idlePoll) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.device == nil {
		return
	}
	n := p.requests.Load()
	if n-p.seen >= busyRequests {
		p.seen = n
		p.timer.Reset(busyTime)
		return
	}
	_, _ = p.device.Write(wakeAsUsual)
	p.asked.Store(false)
}

// close leaves idle processors alone for good.
func (p *idlePoll) close() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.device == nil {
		return nil
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	err := p.device.Close()
	p.device = nil
	return err
}

// pollingPays reports whether this is a virtual machine of few processors whose kernel could poll before it
// halts one, but has been told not to. sys is where sysfs is mounted.
func pollingPays(sys string) bool {
	read := func(path string) string {
		b, _ := os.ReadFile(sys + path) // what is not there is not so
		return strings.TrimSpace(string(b))
	}
	return read("/devices/system/cpu/cpuidle/current_driver") == "haltpoll" &&
		read("/module/haltpoll/parameters/guest_halt_poll_ns") == "0" &&
		processors(read("/devices/system/cpu/online")) <= maxIdlePollers
}

// processors counts those of a list like "0-3,6"; if it cannot be read there are many.
func processors(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || b < a {
			return maxIdlePollers + 1
		}
		n += b - a + 1
	}
	return n
}
