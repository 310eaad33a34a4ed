package replica

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

func FuzzControlEntry(f *testing.F) {
	for _, e := range goldenEntries(f) {
		f.Add(e.body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// Signed by whom it says: what else is wrong must be found out.
		e, err := parseEntry(testVolume, sign(keyOf("a"), controlDomain, body))
		if err != nil {
			return
		}
		log := newControlLog(testVolume)
		for _, g := range goldenEntries(t) {
			if _, err := log.add(g); err != nil {
				t.Fatal(err)
			}
		}
		if len(e.parents) > 0 {
			e.parents = log.headList()
		}
		if added, err := log.add(e); added == (err != nil) && err != nil {
			t.Fatal("added and refused")
		}
		log.says()
	})
}

func FuzzSigned(f *testing.F) {
	s := goldenEnvelope(f, 1)
	b, err := s.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSigned(b, 1<<16)
		if err != nil {
			return
		}
		again, err := s.marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseSigned(again, 1<<16)
		if err != nil || back.hash != s.hash {
			t.Fatal("lost on the way", err)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add(goldenEnvelope(f, 1).body)
	f.Add(goldenEnvelope(f, 2).body)
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEnvelope(testVolume, body)
		if err != nil {
			return
		}
		again, err := e.marshal(testVolume)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseEnvelope(testVolume, again)
		if err != nil || back.Seq != e.Seq || back.Author != e.Author || !bytes.Equal(back.Sealed, e.Sealed) {
			t.Fatal("lost on the way", err)
		}
	})
}

func FuzzOffer(f *testing.F) {
	id := chunk.ID{1}
	b, err := proto.Marshal(&replicapb.Offer{Number: 1, Ids: id[:], Sizes: []uint32{5}, End: make([]byte, 12)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p replicapb.Offer
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		items, err := parseOffer(&p)
		if err != nil {
			return
		}
		in := newIncoming()
		v := in.join(DeviceID{}, 1<<20)
		if in.offer(v, p.GetNumber(), p.GetEnd(), items) != nil {
			return
		}
		for _, q := range items {
			in.arrived(q.id, v, time.Now())
		}
		if len(in.filled()) != 1 || v.bytes != 0 {
			t.Fatal("filled offer is not")
		}
	})
}

func FuzzHello(f *testing.F) {
	b, err := proto.Marshal(&replicapb.Hello{Protocol: 1, Volume: testVolume[:], Instance: make([]byte, 16), Port: 4747, Addrs: []string{"10.0.0.1:4747"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p replicapb.Hello
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		hello, refusal := judgeHello(&p, testVolume)
		if (hello == nil) == (refusal == nil) {
			t.Fatal("neither or both")
		}
		if hello != nil && len(hello.seenAt("10.0.0.2:33")) > maxAddrs {
			t.Fatal("too many addresses")
		}
	})
}

// FuzzLogMessage feeds a session whole messages; nothing of them may be stored.
func FuzzLogMessage(f *testing.F) {
	s := goldenEnvelope(f, 1)
	b, err := proto.Marshal(&replicapb.LogMessage{
		State:     &replicapb.State{Heads: [][]byte{s.hash[:]}, Have: []*replicapb.Position{{Author: testEpoch[:], Seq: 3}}},
		Envelopes: []*replicapb.Signed{s.proto()},
		Acked:     []*replicapb.Position{{Author: testEpoch[:], Seq: 3}},
		Peers:     []*replicapb.Peer{{Device: s.hash[:], Addrs: []string{"x"}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	n := newTestNode(f, "a", memNet()).found()
	r, err := Open(n.config())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		var m replicapb.LogMessage
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		s := &session{
			r: r, peer: idOf("b"), logWake: make(chan struct{}, 1), has: map[AuthorID]uint64{}, dirty: map[AuthorID]struct{}{},
			forks: map[AuthorID]struct{}{},
		}
		_ = s.takeLog(&m)
		if len(r.Vector()) != 0 || len(r.Devices()) != 1 {
			t.Fatal("something was stored")
		}
	})
}

func FuzzPushReply(f *testing.F) {
	id := chunk.ID{1}
	b, err := proto.Marshal(&replicapb.PushReply{Want: id[:], Acked: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m replicapb.PushReply
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		p := newPushState(Position{})
		p.offer([]Item{{id, 5, storePos(1)}, {chunk.ID{2}, 5, storePos(2)}}, storePos(2))
		if p.want(m.GetWant()) != nil {
			return
		}
		if _, _, err := p.ack(m.GetAcked()); err == nil && len(p.wants) > 2 {
			t.Fatal("wants more than was offered")
		}
	})
}
