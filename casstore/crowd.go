package casstore

import "time"

const (
	// firstRate is how fast a disk is taken to be before a flush has shown it, in bytes per second.
	firstRate = 64 << 20
	// minCrowd is how much may always wait for a flush, in bytes.
	minCrowd = 4 << 20
	// slowFlush is how many bytes a flush must have made durable at least to show how fast the disk is.
	slowFlush = 1 << 20
)

// crowd bounds what waits for a flush by the time that the flush will take: who puts chunks faster than the disk takes them waits
// for it in small steps, and not everybody else, whose flush comes behind theirs, for a long time at once. Store.mu guards it.
type crowd struct {
	within  time.Duration // how long a flush should take at most
	waiting int64         // bytes appended and not durable
	limit   int64         // of waiting
}

func newCrowd(within time.Duration) crowd {
	c := crowd{within: within}
	c.learn(firstRate, time.Second)
	return c
}

// added counts bytes that were appended, and reports whether their owner should wait for a flush.
func (c *crowd) added(n int) (crowded bool) {
	c.waiting += int64(n)
	return c.waiting >= c.limit
}

// flushed notes that a flush took some time for n bytes.
func (c *crowd) flushed(n int64, took time.Duration) {
	c.waiting -= n
	if n >= slowFlush {
		c.learn(n, took)
	}
}

// learn sets the limit by how long the disk takes for n bytes.
func (c *crowd) learn(n int64, took time.Duration) {
	rate := float64(n) / max(took, time.Millisecond).Seconds()
	c.limit = max(minCrowd, int64(rate*c.within.Seconds()))
}
