package main

import "time"

// clockOffset is set by builds for tests only, to see what a wrong clock does:
// go build -ldflags "-X main.clockOffset=8760h". What ships has it empty.
var clockOffset string

// wallClock returns the clock of this program's nodes.
func wallClock() func() time.Time {
	offset, err := time.ParseDuration(clockOffset)
	if err != nil {
		return time.Now
	}
	return func() time.Time { return time.Now().Add(offset) }
}
