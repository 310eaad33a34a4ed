package replica

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// ErrRetired says that another recovery phrase is in force.
var ErrRetired = errors.New("replica: this recovery phrase was retired")

const (
	// recoverPatience bounds how long the control log may take to come.
	recoverPatience = time.Minute
	// confirmPatience bounds how long the admission may take to be known there.
	confirmPatience = 10 * time.Second
)

// Recovering is what a device brings that lets itself in with the recovery phrase.
type Recovering struct {
	Addr string             // of any device of the volume, HOST:PORT
	Key  ed25519.PrivateKey // derived from the phrase
	Name string             // to be known by; gets a number if it is taken
	Box  []byte             // its X25519 key, 32 bytes
	// Rewrap opens epoch keys that are wrapped for the recovery key and wraps them
	// for this device.
	Rewrap func([]WrappedKey) ([]WrappedKey, error)
}

// DialAs makes a transport for one of the two identities that recovery needs.
type DialAs func(ed25519.PrivateKey, transport.Handshaker) (transport.Transport, error)

// errCaughtUp ends the reading of the control log.
var errCaughtUp = errors.New("caught up")

// Recover lets this device into the volume by the word of the recovery key, with all keys
// that were wrapped for that. It takes the control log from the device at an address,
// which may be a keyless replica, hands it the admission, and stores both, durably
// on return. It fails with ErrRetired if another phrase is in force. Of cfg it needs
// Volume, Identity and KV.
func Recover(ctx context.Context, cfg Config, dialAs DialAs, rec Recovering) error {
	r, err := bare(cfg)
	if err != nil {
		return err
	}
	defer r.close()
	if len(r.control.order) > 0 {
		return ErrVolumeExists
	}
	_, _ = rand.Read(r.instance[:])
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	conn, err := r.dialHelper(ctx, rec.Key, dialAs, rec.Addr, DeviceID{})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := newSession(r, conn, nil)
	defer s.end("recovered")
	err = s.openStream(replicapb.Stream_KIND_LOG, func(st *stream) error {
		if err := s.readWhole(st); err != nil {
			return err
		}
		e, err := r.admitSelf(rec)
		if err != nil {
			return err
		}
		if err := r.remember(s.peer, rec.Addr); err != nil {
			return err
		}
		if err := st.write(&replicapb.LogMessage{Control: []*replicapb.Signed{e.proto()}}); err != nil {
			return err
		}
		if err := st.flush(); err != nil {
			return err
		}
		return cmp.Or(r.confirm(ctx, dialAs, rec.Addr, s.peer), errCaughtUp)
	})
	if errors.Is(err, errCaughtUp) {
		return nil
	}
	return err
}

// remember stores where the helper is, and with that all that was stored before, durably.
func (r *Replica) remember(helper DeviceID, addr string) error {
	r.mu.Lock()
	r.learnAddrs(helper, []string{addr}, true)
	r.mu.Unlock()
	if err := r.savePeers(); err != nil {
		return err
	}
	if err := r.cfg.KV.Sync(); err != nil {
		return fmt.Errorf("flush state: %w", err)
	}
	return nil
}

// dialHelper connects to whoever is at an address.
func (r *Replica) dialHelper(ctx context.Context, as ed25519.PrivateKey, dialAs DialAs, addr string, peer DeviceID) (transport.Conn, error) {
	t, err := dialAs(as, joiner{r.hello(), r.cfg.Volume})
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	conn, err := t.Dial(ctx, addr, transport.PeerID(peer))
	if refused, ok := asRefused(err); ok {
		return nil, refused
	}
	return conn, err
}

// readWhole reads the control log until it has all that the peer had at the start.
func (s *session) readWhole(st *stream) error {
	if err := s.greet(st); err != nil {
		return err
	}
	var heads []Hash
	var peers []*replicapb.Peer
	for {
		var m replicapb.LogMessage
		if err := st.read(&m, maxMessage); err != nil {
			return err
		}
		if p := m.GetState(); p != nil {
			var err error
			if heads, err = parseHashes(p.GetHeads()); err != nil {
				return err
			}
		}
		if err := s.r.acceptControl(s, m.GetControl()); err != nil {
			return err
		}
		peers = append(peers, m.GetPeers()...)
		peers = peers[:min(len(peers), maxPeers)]
		s.r.mu.Lock()
		done := len(heads) > 0 && s.r.control.knows(heads)
		_, known := s.r.control.device(s.peer)
		s.r.mu.Unlock()
		if done && !known {
			return invalid("the device that answers is not of this volume")
		}
		if done {
			return s.r.learnPeers(s.peer, peers)
		}
	}
}

// admitSelf has the recovery key let this device in.
func (r *Replica) admitSelf(rec Recovering) (*entry, error) {
	r.mu.Lock()
	inForce := bytes.Equal(recoveryIn(r.control.recovery).GetSign(), rec.Key.Public().(ed25519.PublicKey))
	var wrapped []WrappedKey
	for id, s := range r.control.epochs {
		if w := s.wraps[DeviceID{}]; w.valid && r.control.precedes(r.control.recovery, w.from) {
			wrapped = append(wrapped, WrappedKey{id, w.key})
		}
	}
	r.mu.Unlock()
	if !inForce {
		return nil, ErrRetired
	}
	keys, err := rec.Rewrap(wrapped)
	if err != nil {
		return nil, fmt.Errorf("open the keys of the volume: %w", err)
	}
	a := &replicapb.Admit{Device: r.self[:], Box: rec.Box, Name: r.freeName(rec.Name), Role: replicapb.Role_ROLE_MEMBER}
	var wraps []Wrap
	for _, k := range keys {
		wraps = append(wraps, Wrap{k.Epoch, r.self, k.Key})
	}
	a.Wraps = wrapList(wraps)
	r.logMu.Lock()
	defer r.logMu.Unlock()
	e, err := r.draftAs(rec.Key, &replicapb.ControlEntry{What: &replicapb.ControlEntry_Admit{Admit: a}})
	if err != nil {
		return nil, err
	}
	_, err = r.addControl(e, nil, nil)
	return e, err
}

// confirm returns once the helper takes this device for one of the volume.
func (r *Replica) confirm(ctx context.Context, dialAs DialAs, addr string, helper DeviceID) error {
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	for {
		conn, err := r.dialHelper(ctx, r.cfg.Identity, dialAs, addr, helper)
		if err == nil {
			return conn.Close()
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("the admission has not become known: %w", err)
		}
	}
}

// runGuest gives the holder of the recovery phrase the control log, and takes the entries it signs.
func (s *session) runGuest() error {
	stop := context.AfterFunc(s.ctx, func() { s.conn.Close() })
	defer stop()
	s.spawn("accept", s.acceptLoop)
	select {
	case <-s.conn.Done():
		s.cancel(errors.New("connection closed"))
	case <-time.After(recoverPatience):
		s.cancel(errors.New("it took too long"))
	case <-s.ctx.Done():
	}
	s.conn.Close()
	s.wg.Wait()
	return context.Cause(s.ctx)
}

// recoveryKey says what a key is to the volume: that of the phrase in force, or of one that was
// retired; mu is held.
func (r *Replica) recoveryKey(key DeviceID) (inForce, retired bool) {
	for _, e := range r.control.recoveries {
		if bytes.Equal(recoveryIn(e).GetSign(), key[:]) {
			inForce, retired = e == r.control.recovery, true
		}
	}
	return inForce, retired && !inForce
}
