package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// However many addresses a device is merely seen at, a name that somebody chose for it is not forgotten; nor, beside
// names, where it was seen last.
func TestNamesOutliveAddresses(t *testing.T) {
	r := &Replica{}
	r.initMaps()
	id := DeviceID{1}
	learn := func(addr string, first bool) []string {
		r.learnAddrs(id, []string{addr}, first)
		return r.peer(id).addrs
	}
	learn("home.example:4747", true)
	for i := range 2 * maxAddrs {
		learn(fmt.Sprintf("10.0.0.%d:4747", i), true)
	}
	got := learn("[fd00::1]:4747", true)
	if len(got) != maxAddrs || got[0] != "[fd00::1]:4747" || !slices.Contains(got, "home.example:4747") {
		t.Errorf("after many addresses: %q", got)
	}
	for i := range maxAddrs {
		learn(fmt.Sprintf("%d.example:4747", i), true)
	}
	if got = learn("10.0.0.1:4747", true); len(got) != maxAddrs || got[0] != "10.0.0.1:4747" {
		t.Errorf("after many names: %q", got)
	}
	if now := learn("rumour.example:4747", false); !slices.Equal(now, got) {
		t.Errorf("after what a third device says: %q", now)
	}
}

// TestNeverSeen: a device that was never seen is not one that was seen in 1970.
func TestNeverSeen(t *testing.T) {
	for _, seen := range []time.Time{{}, time.UnixMilli(1_700_000_000_000)} {
		value, err := proto.Marshal((&peer{lastSeen: seen}).record())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := parsePeer(value); err != nil || !p.lastSeen.Equal(seen) {
			t.Errorf("seen %v, read back as %v, %v", seen, p, err)
		}
	}
}
