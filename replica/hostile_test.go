package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// stranger connects to a node with a key of its own and says what a test wants.
type stranger struct {
	t    *testing.T
	n    *testNode
	conn transport.Conn
}

type scripted func(s transport.Stream) (any, error)

func (f scripted) Handshake(_ context.Context, s transport.Stream, _ transport.PeerID, _ bool) (any, error) {
	return f(s)
}

func (n *testNode) dialWith(t *testing.T, to *testNode, f scripted) (transport.Conn, error) {
	tr, err := n.make(transport.Config{Identity: n.key, Handshake: f})
	if err != nil {
		t.Fatal(err)
	}
	return tr.Dial(t.Context(), to.addr, transport.PeerID(to.id()))
}

func helloOf(n *testNode) *replicapb.Hello {
	return &replicapb.Hello{Protocol: protocolVersion, Volume: testVolume[:], Instance: make([]byte, 16), Addrs: []string{n.addr}}
}

// evil returns a member of a's volume that has no replica, but a connection.
func evil(t *testing.T, a *testNode) *stranger {
	n := newTestNode(t, "evil", a.make).joinBy(a, RoleMember)
	return connectAs(t, n, a)
}

func connectAs(t *testing.T, n, a *testNode) *stranger {
	conn, err := n.dialWith(t, a, func(s transport.Stream) (any, error) { return dialHello(s, helloOf(n), testVolume) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stranger{t, n, conn}
}

func (s *stranger) stream(kind replicapb.Stream_Kind) *stream {
	raw, err := s.conn.Open(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	st := newStream(raw)
	if err := errors.Join(st.write(&replicapb.Stream{Kind: kind}), st.flush()); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// dropped expects the node to end the connection.
func (s *stranger) dropped(what string) {
	s.t.Helper()
	select {
	case <-s.conn.Done():
	case <-time.After(10 * time.Second):
		s.t.Errorf("%s: connection lives on", what)
	}
}

// banned expects that a does not talk to it again at once.
func (s *stranger) banned(a *testNode, what string) {
	s.t.Helper()
	a.Replica.mu.Lock()
	defer a.Replica.mu.Unlock()
	if a.peer(s.n.id()).strikes == 0 {
		s.t.Errorf("%s: no ban", what)
	}
}

func (s *stranger) envelope(edit func(*Envelope)) *replicapb.Signed {
	author := AuthorOf(s.n.id(), [8]byte{1})
	e := Envelope{Author: author, Device: s.n.id(), Seq: 1, Epoch: testEpoch, Heads: headsOf(s.n), Sealed: []byte("bad")}
	if edit != nil {
		edit(&e)
	}
	body, err := e.marshal(testVolume)
	if err != nil {
		s.t.Fatal(err)
	}
	signed := sign(s.n.key, envelopeDomain, body)
	return signed.proto()
}

// headsOf reads the control heads out of a node's state.
func headsOf(n *testNode) []Hash {
	cfg := n.config()
	r, err := Open(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	return r.ControlHeads()
}

func TestForgedEnvelopesAreRefused(t *testing.T) {
	other := newTestNode(t, "other", nil)
	cases := map[string]func(s *stranger) *replicapb.Signed{
		"wrong signature": func(s *stranger) *replicapb.Signed {
			p := s.envelope(nil)
			p.Signature[3] ^= 1
			return p
		},
		"body changed": func(s *stranger) *replicapb.Signed {
			p := s.envelope(nil)
			p.Body[len(p.Body)-1] ^= 1
			return p
		},
		"another's author": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Author = AuthorOf(other.id(), [8]byte{1}) })
		},
		"another's device": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Device, e.Author = other.id(), AuthorOf(other.id(), [8]byte{1}) })
		},
		"gap": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Seq = 2 })
		},
		"unknown heads": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Heads = []Hash{{1}} })
		},
		"unknown epoch": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Epoch = EpochID{1} })
		},
		"nothing sealed": func(s *stranger) *replicapb.Signed {
			return s.envelope(func(e *Envelope) { e.Sealed = nil })
		},
		"no message": func(*stranger) *replicapb.Signed {
			return &replicapb.Signed{Body: []byte("garbage"), Signature: make([]byte, 64)}
		},
		"short signature": func(s *stranger) *replicapb.Signed {
			return &replicapb.Signed{Body: s.envelope(nil).Body, Signature: make([]byte, 63)}
		},
	}
	for name, forge := range cases {
		t.Run(name, func(t *testing.T) {
			a := newTestNode(t, "a", memNet()).found().start()
			s := evil(t, a)
			st := s.stream(replicapb.Stream_KIND_LOG)
			m := &replicapb.LogMessage{State: &replicapb.State{}, Envelopes: []*replicapb.Signed{forge(s)}}
			_ = errors.Join(st.write(m), st.flush()) // it may be dropped before the last write returns
			s.dropped(name)
			if v := a.Vector(); len(v) != 0 || len(a.texts()) != 0 {
				t.Fatalf("stored: %v", v)
			}
			if _, err := s.n.dialWith(t, a, func(st transport.Stream) (any, error) { return dialHello(st, helloOf(s.n), testVolume) }); err == nil {
				t.Fatal("talked to again at once")
			}
		})
	}
}

func TestForkIsRefusedAndTheRestGoesOn(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	s := evil(t, a)
	st := s.stream(replicapb.Stream_KIND_LOG)
	first, second := s.envelope(nil), s.envelope(func(e *Envelope) { e.Sealed = []byte("other") })
	third := s.envelope(func(e *Envelope) { e.Author, e.Sealed = AuthorOf(s.n.id(), [8]byte{2}), []byte("fine") })
	m := &replicapb.LogMessage{State: &replicapb.State{}, Envelopes: []*replicapb.Signed{first, second, third}}
	if err := errors.Join(st.write(m), st.flush()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest", func() bool { return a.sees("bad", "fine") })
}

func TestGarbageOnStreamsEndsTheConnection(t *testing.T) {
	cases := map[string]func(st *stream) error{
		"too large": func(st *stream) error {
			_, err := st.raw.Write([]byte{0xff, 0xff, 0xff, 0xff})
			return err
		},
		"no message": func(st *stream) error {
			_, err := st.raw.Write([]byte{0, 0, 0, 3, 0xff, 0xff, 0xff})
			return err
		},
		"a list of nothing": func(st *stream) error { // a gigabyte, decoded
			_, err := st.raw.Write(append(binary.BigEndian.AppendUint32(nil, maxMessage), bytes.Repeat([]byte{0x2a, 0}, maxMessage/2)...))
			return err
		},
		"two states": func(st *stream) error {
			m := &replicapb.LogMessage{State: &replicapb.State{}}
			return errors.Join(st.write(m), st.write(m), st.flush())
		},
		"bad vector": func(st *stream) error {
			m := &replicapb.LogMessage{State: &replicapb.State{Have: []*replicapb.Position{{Author: []byte{1}}}}}
			return errors.Join(st.write(m), st.flush())
		},
		"address of nobody": func(st *stream) error {
			m := &replicapb.LogMessage{Peers: []*replicapb.Peer{{Device: []byte{1}, Addrs: []string{"x"}}}}
			return errors.Join(st.write(m), st.flush())
		},
		"control entry without parents": func(st *stream) error {
			m := &replicapb.LogMessage{Control: []*replicapb.Signed{{Body: []byte{1}, Signature: make([]byte, 64)}}}
			return errors.Join(st.write(m), st.flush())
		},
	}
	for name, say := range cases {
		t.Run(name, func(t *testing.T) {
			a := newTestNode(t, "a", memNet()).found().start()
			s := evil(t, a)
			_ = say(s.stream(replicapb.Stream_KIND_LOG))
			s.dropped(name)
			s.banned(a, name)
		})
	}
}

// TestOneStreamOfLogs: each takes the memory of a large message, and they would share what a session knows.
func TestOneStreamOfLogs(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	s := evil(t, a)
	for range 2 {
		s.stream(replicapb.Stream_KIND_LOG)
	}
	s.dropped("two streams of logs")
	s.banned(a, "two streams of logs")
}

// TestHeadsOfNothingTakeNoMemory: an envelope is decoded before its signature is looked at.
func TestHeadsOfNothingTakeNoMemory(t *testing.T) {
	body := bytes.Repeat([]byte{0x3a, 0}, maxEnvelope/2)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := parseEnvelope(testVolume, body); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

func TestBadPushIsRefused(t *testing.T) {
	cases := map[string]*replicapb.PushMessage{
		"empty offer":  {Offer: &replicapb.Offer{Number: 1}},
		"wrong number": {Offer: &replicapb.Offer{Number: 2, Ids: make([]byte, 32), Sizes: []uint32{1}, End: make([]byte, 12)}},
		"huge chunk":   {Offer: &replicapb.Offer{Number: 1, Ids: append(make([]byte, 31), 1), Sizes: []uint32{1 << 30}, End: make([]byte, 12)}},
		"odd gone":     {Gone: make([]byte, 31)},
	}
	for name, m := range cases {
		t.Run(name, func(t *testing.T) {
			a := newTestNode(t, "a", memNet()).found().start()
			s := evil(t, a)
			st := s.stream(replicapb.Stream_KIND_PUSH)
			_ = errors.Join(st.write(m), st.flush())
			s.dropped(name)
		})
	}
}

func TestUnaskedChunkIsNotStored(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	s := evil(t, a)
	st := s.stream(replicapb.Stream_KIND_PUSH)
	if err := errors.Join(st.write(&replicapb.PushMessage{Chunk: []byte("unasked")}), st.flush()); err != nil {
		t.Fatal(err)
	}
	id := a.store.put(t, 10)
	f := s.stream(replicapb.Stream_KIND_FETCH)
	if err := errors.Join(f.write(&replicapb.FetchRequest{Ids: append(make([]byte, 32), id[:]...)}), f.flush()); err != nil {
		t.Fatal(err)
	}
	found := 0
	for range 2 {
		var r replicapb.FetchReply
		if err := f.read(&r, maxPush); err != nil {
			t.Fatal(err)
		}
		if len(r.GetChunk()) > 0 {
			found++
		}
	}
	if found != 1 || a.store.len() != 1 {
		t.Fatalf("%d found, %d stored", found, a.store.len())
	}
}

func TestLyingHolderIsDropped(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	s := evil(t, a)
	id := a.store.put(t, 10)
	a.store.mu.Lock()
	delete(a.store.chunks, id)
	a.store.mu.Unlock()
	go func() {
		for {
			raw, err := s.conn.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				st := newStream(raw)
				var kind replicapb.Stream
				if st.read(&kind, 100) != nil || kind.GetKind() != replicapb.Stream_KIND_FETCH {
					return
				}
				var req replicapb.FetchRequest
				if st.read(&req, 1000) != nil {
					return
				}
				_ = errors.Join(st.write(&replicapb.FetchReply{Id: req.Ids, Chunk: []byte("lies")}), st.flush())
			}()
		}
	}()
	eventually(t, "connection", func() bool { return a.connectedTo(s.n) })
	if _, err := a.Fetch(t.Context(), id); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	s.dropped("lie")
}

func TestInvites(t *testing.T) {
	mk := memNet()
	var ahead atomic.Int64 // ns
	a := newTestNode(t, "a", mk)
	a.edit = func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } }
	a.found().start()
	inv, err := a.CreateInvite(RoleMember, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Addrs) != 1 || inv.Addrs[0] != "a" {
		t.Fatalf("addresses %q", inv.Addrs)
	}
	a.stop()
	a.start() // an invite survives a restart
	b := newTestNode(t, "b", mk)
	if err := b.join(inv); err != nil {
		t.Fatal(err)
	}
	if err := b.join(inv); !errors.Is(err, ErrVolumeExists) {
		t.Fatalf("joined twice: %v", err)
	}
	wantCode := func(what string, inv Invite, code Code) {
		t.Helper()
		n := newTestNode(t, what, mk)
		var refused *RefusedError
		if err := n.join(inv); !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%s: %v", what, err)
		}
		if len(a.Devices()) != 2 {
			t.Fatalf("%s was let in", what)
		}
	}
	wantCode("used", inv, CodeInviteUsed)
	fresh, err := a.CreateInvite(RoleMember, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	garbled := fresh
	garbled.Secret[0] ^= 1
	wantCode("garbled", garbled, CodeInviteUnknown)
	promoted := fresh
	promoted.Role = RoleReplica
	wantCode("other role", promoted, CodeInviteUnknown)
	ahead.Store(int64(2 * time.Hour))
	fresh.Expires = fresh.Expires.Add(24 * time.Hour) // a lie does not help
	wantCode("expired", fresh, CodeInviteExpired)
	late := fresh
	late.Expires = time.Now().Add(-time.Second)
	wantCode("seen to be expired", late, CodeInviteExpired)

	c := newTestNode(t, "c", mk)
	foreign := fresh
	foreign.Volume = VolumeID{5}
	if err := c.join(foreign); !errors.Is(err, ErrInvalid) {
		t.Errorf("other volume: %v", err)
	}
	cfg := c.config()
	cfg.Volume = VolumeID{5}
	var refused *RefusedError
	if err := Join(t.Context(), cfg, Joining{Invite: foreign, Name: "c", Box: make([]byte, 32)}); !errors.As(err, &refused) || refused.Code != CodeVolume {
		t.Errorf("volume that is not there: %v", err)
	}
	gone := fresh
	gone.Addrs = []string{"nowhere"}
	if err := c.join(gone); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := Open(c.config()); !errors.Is(err, ErrNoVolume) {
		t.Errorf("half joined: %v", err)
	}
}

func TestJoinMayBeRepeated(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	inv, err := a.CreateInvite(RoleMember, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestNode(t, "b", mk)
	hello := helloOf(b)
	hello.Join = &replicapb.Join{Secret: inv.Secret[:], Box: make([]byte, 32), Name: "b", Role: replicapb.Role_ROLE_MEMBER}
	conn, err := b.dialWith(t, a, func(s transport.Stream) (any, error) { return dialHello(s, hello, testVolume) })
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // before b could write anything down
	if err := b.join(inv); err != nil {
		t.Fatal(err)
	}
	if n := len(a.Devices()); n != 2 {
		t.Fatalf("%d devices", n)
	}
}

func TestJoinGoesOnAfterPartOfTheLog(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	first, err := a.kv.Get(controlKey(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.kv.Update(func(tx kv.Tx) error { return tx.Put(controlKey(0), first) }); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(b.config()); !errors.Is(err, ErrUnknownDevice) {
		t.Fatalf("half joined: %v", err)
	}
	b.joinBy(a, RoleMember).start()
	a.write("x")
	eventually(t, "exchange", func() bool { return b.sees("x") })
}

func TestUnknownDeviceAndCloneAreRefused(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	for name, want := range map[string]Code{"stranger": CodeUnknownDevice, "a": CodeClone} {
		n := newTestNode(t, name, a.make)
		_, err := n.dialWith(t, a, func(s transport.Stream) (any, error) { return dialHello(s, helloOf(n), testVolume) })
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := newTestNode(t, "older", a.make)
	_, err := n.dialWith(t, a, func(s transport.Stream) (any, error) {
		h := helloOf(n)
		h.Protocol = 99
		return dialHello(s, h, testVolume)
	})
	if refused, ok := asRefused(err); !ok || refused.Code != CodeProtocol {
		t.Errorf("protocol: %v", err)
	}
}

func TestSameNameGetsANumber(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	twin := newTestNode(t, "twin", mk)
	twin.name = "a"
	twin.joinBy(a, RoleMember)
	if d := a.Devices()[1]; d.Name != "a-2" {
		t.Fatalf("called %q", d.Name)
	}
}

// TestInventedLogsAreBounded: a device that says it has logs nobody wrote is not remembered with all of them.
func TestInventedLogsAreBounded(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	e := evil(t, a)
	st := e.stream(replicapb.Stream_KIND_LOG)
	m := &replicapb.LogMessage{State: &replicapb.State{}}
	for n := range uint64(2 * maxUnheard) {
		var author AuthorID
		binary.BigEndian.PutUint64(author[:], n+1)
		m.Acked = append(m.Acked, &replicapb.Position{Author: author[:], Seq: 1})
	}
	if err := errors.Join(st.write(m), st.flush()); err != nil {
		t.Fatal(err)
	}
	known := func() int {
		a.Replica.mu.Lock()
		defer a.Replica.mu.Unlock()
		return len(a.peer(e.n.id()).acked)
	}
	eventually(t, "the acknowledgement", func() bool { return known() > 0 })
	if n := known(); n > maxUnheard+2 {
		t.Errorf("%d logs that nobody has are remembered", n)
	}
}

// TestEmptyAcknowledgementCounts: a device that comes back without anything is not taken to hold what it held.
func TestEmptyAcknowledgementCounts(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	b.joinBy(a, RoleMember).start()
	a.write("one")
	if err := waitFor(a, 1, 15*time.Second); err != nil {
		t.Fatal(err)
	}
	b.stop()
	eventually(t, "b gone", func() bool { return a.Connected() == 0 })
	st := connectAs(t, b, a).stream(replicapb.Stream_KIND_LOG)
	if err := errors.Join(st.write(&replicapb.LogMessage{State: &replicapb.State{}}), st.flush()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what b said", func() bool {
		a.Replica.mu.Lock()
		defer a.Replica.mu.Unlock()
		return len(a.peer(b.id()).acked) == 0
	})
	if err := waitFor(a, 1, 100*time.Millisecond); err == nil {
		t.Error("b said that it has nothing, and counts as holding all")
	}
}
