package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// ballastSize is memory that counts as in use, in bytes, but is never touched, so that it takes none. The heap may
	// grow by gcPercent of what is in use before garbage is collected, so by some 30 MiB and an eighth of what really is; without the ballast
	// a node that works hard with little in memory would collect many times a second, which takes a tenth of its time.
	ballastSize = 256 << 20
	gcPercent   = 12
	// idleCheck is how often it is looked whether a node is idle, so that memory can go back to the system;
	// idleBytes is how much an idle node allocates meanwhile at most.
	idleCheck = 15 * time.Second
	idleBytes = 4 << 20
)

// tuneMemory has garbage collected as this program can afford it, unless the environment says how (GOGC).
// The caller keeps what it returns.
func tuneMemory() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	go trimWhenIdle()
	return make([]byte, ballastSize)
}

// trimWhenIdle gives memory back to the system once little has been done for a while.
func trimWhenIdle() {
	last, trimmed := allocated(), false
	for range time.Tick(idleCheck) {
		now := allocated()
		idle := now-last < idleBytes
		if idle && !trimmed {
			debug.FreeOSMemory()
		}
		last, trimmed = now, idle
	}
}

// allocated returns how many bytes this program has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
