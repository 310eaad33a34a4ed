package main

import (
	"fmt"
	"time"

	"github.com/foreverfs/forever/internal/node"
)

// What is set by builds for tests only, to see in seconds what takes months:
// go build -ldflags "-X main.clockOffset=8760h". What ships has it empty.
var (
	// clockOffset is how wrong the clock is.
	clockOffset string
	// checkpointing is "tick ops forget-after keep", as in "100ms 500 3s 24h".
	checkpointing string
)

// wallClock returns the clock of this program's nodes.
func wallClock() func() time.Time {
	offset, err := time.ParseDuration(clockOffset)
	if err != nil {
		return time.Now
	}
	return func() time.Time { return time.Now().Add(offset) }
}

// checkpoints returns when this program's nodes make checkpoints.
func checkpoints() (c node.Checkpoints) {
	var tick, forget, keep string
	if n, err := fmt.Sscan(checkpointing, &tick, &c.MinOps, &forget, &keep); err != nil || n != 4 {
		return node.Checkpoints{}
	}
	for text, to := range map[string]*time.Duration{tick: &c.Tick, forget: &c.ForgetAfter, keep: &c.Keep} {
		*to, _ = time.ParseDuration(text)
	}
	return c
}
