package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// Joining is what a newcomer brings.
type Joining struct {
	Invite Invite
	Name   string // to be known by; gets a number if it is taken
	Box    []byte // its X25519 key, 32 bytes
}

// errAdmitted ends the reading of the control log at a newcomer.
var errAdmitted = errors.New("admitted")

// Join has this device let into the volume by the device that made the invite,
// and stores the control log, durably on return. It fails with a *RefusedError if
// the invite does not hold, and with ErrVolumeExists if the state already has a
// volume. A Join that broke off may be repeated with the same identity. Of cfg it
// needs Volume (that of the invite), Identity, KV and Transport.
func Join(ctx context.Context, cfg Config, j Joining) error {
	inv := j.Invite
	if inv.Volume != cfg.Volume {
		return invalid("invite to another volume")
	}
	r, err := bare(cfg)
	if err != nil {
		return err
	}
	defer r.close()
	// Entries without this device among them are left of a Join that broke off.
	if _, in := r.control.device(r.self); in {
		return ErrVolumeExists
	}
	if !r.cfg.Now().Before(inv.Expires) {
		return &RefusedError{Code: CodeInviteExpired, Reason: "the invite has expired"}
	}
	conn, addr, err := r.dialInviter(ctx, j)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := r.readVolume(ctx, conn); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	r.mu.Lock()
	r.learnAddrs(inv.Device, append([]string{addr}, inv.Addrs...), true)
	r.mu.Unlock()
	if err := r.savePeers(); err != nil {
		return err
	}
	if err := r.cfg.KV.Sync(); err != nil {
		return fmt.Errorf("flush state: %w", err)
	}
	return nil
}

// joiner is the handshake of a newcomer.
type joiner struct {
	hello  *replicapb.Hello
	volume VolumeID
}

var _ transport.Handshaker = joiner{}

// Handshake implements transport.Handshaker.
func (j joiner) Handshake(_ context.Context, s transport.Stream, _ transport.PeerID, dialed bool) (any, error) {
	if !dialed {
		return nil, errors.New("not a device of the volume yet")
	}
	return dialHello(s, j.hello, j.volume)
}

// dialInviter reaches the inviter at one of its addresses and hands in the
// invite.
func (r *Replica) dialInviter(ctx context.Context, j Joining) (transport.Conn, string, error) {
	_, _ = rand.Read(r.instance[:])
	hello := r.hello()
	hello.Join = &replicapb.Join{
		Secret: j.Invite.Secret[:],
		Box:    j.Box,
		Name:   j.Name,
		Role:   replicapb.Role(j.Invite.Role),
	}
	t, err := r.cfg.Transport(joiner{hello, r.cfg.Volume})
	if err != nil {
		return nil, "", fmt.Errorf("make transport: %w", err)
	}
	errs := []error{errors.New("join: no device answers at the addresses of the invite")}
	for _, addr := range j.Invite.Addrs {
		conn, err := t.Dial(ctx, addr, transport.PeerID(j.Invite.Device))
		if err == nil {
			return conn, addr, nil
		}
		if refused, ok := asRefused(err); ok {
			return nil, "", fmt.Errorf("join: %w", refused)
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", errors.Join(errs...)
}

// readVolume reads the control log until it says that this device is in.
func (r *Replica) readVolume(ctx context.Context, conn transport.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := newSession(r, conn, nil)
	defer s.end("joined")
	err := s.openStream(replicapb.Stream_KIND_LOG, func(st *stream) error {
		if err := s.greet(st); err != nil {
			return err
		}
		for {
			var m replicapb.LogMessage
			if err := st.read(&m, maxMessage); err != nil {
				return err
			}
			if err := r.acceptControl(s, m.GetControl()); err != nil {
				return err
			}
			r.mu.Lock()
			_, in := r.control.device(r.self)
			r.mu.Unlock()
			if in {
				return errAdmitted
			}
		}
	})
	if errors.Is(err, errAdmitted) {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("read the control log: %w", ctx.Err())
	}
	return fmt.Errorf("read the control log: %w", err)
}
