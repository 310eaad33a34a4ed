package fusefs

import (
	"sync"
	"sync/atomic"
	"testing"
)

// However the workers take turns, one is left: if all ended, the mount would.
func TestWorkersAreLeft(t *testing.T) {
	var s Server
	var left atomic.Int32
	var work func()
	var g sync.WaitGroup
	var requests atomic.Int32
	start := func() {
		s.idle.Add(1)
		left.Add(1)
		g.Go(work)
	}
	work = func() {
		for requests.Add(1) < 400_000 {
			s.idle.Add(-1) // a request
			if s.idle.Load() == 0 {
				start()
			}
			if !s.goIdle(1) {
				left.Add(-1)
				return
			}
		}
	}
	for range waitingWorkers {
		start()
	}
	g.Wait()
	if n := left.Load(); n < 1 {
		t.Errorf("%d workers are left after %d requests", n, requests.Load())
	}
}
