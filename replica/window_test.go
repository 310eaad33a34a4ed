package replica

import (
	"testing"
	"time"
)

// thinLink carries chunks one after the other at a rate, each a round trip after it
// was asked for at the earliest.
type thinLink struct {
	trip time.Duration
	rate float64 // bytes per second
	now  time.Time
	free time.Time // when it has sent what it was given
	way  []crossing
	sent int // bytes
	late time.Duration
}

// crossing is a chunk on its way.
type crossing struct {
	asked, comes time.Time
	size         int
}

// run asks for chunks of size as a window allows, for as long as told.
func (l *thinLink) run(w *window, size int, d time.Duration) {
	end := l.now.Add(d)
	l.late = 0
	for l.now.Before(end) {
		for w.room(len(l.way)*size, size) {
			asked := l.now.Add(l.trip / 2)
			if l.free.Before(asked) {
				l.free = asked
			}
			l.free = l.free.Add(time.Duration(float64(size) / l.rate * 1e9))
			l.way = append(l.way, crossing{l.now, l.free.Add(l.trip / 2), size})
		}
		c := l.way[0]
		l.way = l.way[1:]
		l.now = c.comes
		l.sent += c.size
		l.late = max(l.late, c.comes.Sub(c.asked)-l.trip)
		w.took(c.size, c.comes.Sub(c.asked), l.now)
	}
}

func TestWindowFillsLinkWithoutQueue(t *testing.T) {
	const size = 64 << 10
	for _, tc := range []struct {
		trip time.Duration
		rate float64
	}{
		{40 * time.Millisecond, 25e6},
		{200 * time.Millisecond, 12e6},
		{time.Millisecond, 100e6},
		{20 * time.Millisecond, 125e3},
	} {
		l := &thinLink{trip: tc.trip, rate: tc.rate, now: time.Unix(1e9, 0)}
		w := newWindow(8 << 20)
		l.run(w, size, 20*time.Second)
		l.sent = 0
		l.run(w, size, 60*time.Second)
		used := float64(l.sent) / 60 / tc.rate
		one := time.Duration(size / tc.rate * 1e9)
		allowed := tc.trip/2 + 3*queueing + 2*one
		t.Logf("%v at %.3g B/s: %.3f of the link, a chunk waits %v at most (alone it takes %v)", tc.trip, tc.rate, used, l.late, one)
		if used < 0.93 {
			t.Errorf("%v at %.3g B/s: only %.3f of the link is used", tc.trip, tc.rate, used)
		}
		if l.late > allowed {
			t.Errorf("%v at %.3g B/s: a queue of %v", tc.trip, tc.rate, l.late)
		}
	}
}

// A route that has become longer, and one that has become shorter, are found out.
func TestWindowFollowsRoute(t *testing.T) {
	l := &thinLink{trip: 10 * time.Millisecond, rate: 25e6, now: time.Unix(1e9, 0)}
	w := newWindow(8 << 20)
	for _, trip := range []time.Duration{10 * time.Millisecond, 150 * time.Millisecond, 10 * time.Millisecond} {
		l.trip = trip
		l.run(w, 64<<10, 40*time.Second)
		l.sent = 0
		l.run(w, 64<<10, 20*time.Second)
		if used := float64(l.sent) / 20 / l.rate; used < 0.9 {
			t.Errorf("at %v only %.3f of the link is used", trip, used)
		}
	}
}
