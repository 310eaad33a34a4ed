package node

import (
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica"
)

// TestPresence: who is silent for long is gone; clocks that jump and machines that were off make nobody gone.
func TestPresence(t *testing.T) {
	const forget = 90 * day
	a, b := replica.DeviceID{1}, replica.DeviceID{2}
	members := []replica.DeviceID{a, b}
	state := kv.NewMem()
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	now := start
	wrote, returns := map[replica.DeviceID]uint64{}, map[replica.DeviceID]int{}
	look := func(connected ...replica.DeviceID) *presence {
		t.Helper()
		p, err := loadPresence(state) // each look may be that of another run
		if err != nil {
			t.Fatal(err)
		}
		on := map[replica.DeviceID]bool{}
		for _, d := range connected {
			on[d] = true
		}
		p.look(now, members, on, wrote, returns)
		if err := p.save(state); err != nil {
			t.Fatal(err)
		}
		return p
	}
	gone := func(p *presence, d replica.DeviceID) bool { return p.gone(d, forget, returns) }

	look(a, b)
	now = now.Add(365 * day) // a clock that jumps, or a year in a drawer
	if p := look(a); gone(p, b) || p.Time.Sub(start) > maxElapsed {
		t.Fatalf("a jump of the clock made a device gone, or it %v later", p.Time.Sub(start))
	}
	now = start
	if p := look(a); p.Time.After(now) {
		t.Fatal("time did not follow a clock that was set right")
	}
	for i := range 100 {
		now = now.Add(day)
		if p := look(a); gone(p, b) != (i >= 89) {
			t.Fatalf("day %d: %v", i, p.Silent)
		}
	}
	if p := look(a, b); gone(p, b) {
		t.Error("gone while connected")
	}
	for range 100 {
		now = now.Add(day)
		look(a)
	}
	returns[b]++
	p, err := loadPresence(state)
	if err != nil {
		t.Fatal(err)
	}
	if gone(p, b) {
		t.Error("gone though it said that it is back")
	}
	if p := look(a); gone(p, b) {
		t.Error("gone after it said that it is back")
	}
	p.look(now, members, nil, wrote, returns)
	for range 100 {
		now = now.Add(day)
		wrote[b]++ // its batches come by way of others
		p.look(now, members, nil, wrote, returns)
	}
	if gone(p, b) || !gone(p, a) {
		t.Errorf("silent: %v", p.Silent)
	}
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * day, "0d": 0, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := parseAge(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "soon", "99999999d"} {
		if d, err := parseAge(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
}
