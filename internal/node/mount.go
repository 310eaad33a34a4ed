package node

import (
	"context"
	"errors"

	"github.com/foreverfs/forever/fusefs"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/volume"
)

// MountConfig says how a node is mounted.
type MountConfig struct {
	// Mountpoint is what PrepareMountpoint returned.
	Mountpoint string
	AllowOther bool
	// Options are further ones of mount(8), as fusefs.Config has them.
	Options []string
	// IdlePoll says whether idle processors poll while the mount is busy.
	IdlePoll IdlePolling
}

// IdlePolling is that of fusefs.
type IdlePolling = fusefs.IdlePolling

// mount is a mount of this node and the goroutine that serves it.
type mount struct {
	point  string
	server *fusefs.Server
	done   chan struct{}
	err    error // of the server; set before done is closed
}

// Mount mounts the volume; it is usable on return. When the mount ends, by
// whatever means, Done says so.
func (n *Node) Mount(cfg MountConfig) error {
	if n.vol == nil {
		return errKeyless()
	}
	server, err := fusefs.Mount(fusefs.Config{
		Mountpoint: cfg.Mountpoint, Volume: n.vol, ReadOnly: n.cfg.ReadOnly, AllowOther: cfg.AllowOther, Options: cfg.Options,
		IdlePoll: cfg.IdlePoll, FSName: n.dir.path, Logger: n.log.Named("fuse"),
	})
	if err != nil {
		return mountFailure(cfg.Mountpoint, err)
	}
	m := &mount{point: cfg.Mountpoint, server: server, done: make(chan struct{})}
	n.mount.Store(m)
	go func() {
		defer close(m.done)
		m.err = server.Serve(context.Background())
		n.log.Info("unmounted", "mountpoint", cfg.Mountpoint) // by this node, or by anybody
		n.end(m.err)
	}()
	n.log.Info("mounted", "mountpoint", cfg.Mountpoint)
	return nil
}

// mountFailure tells why nothing was mounted.
func mountFailure(path string, err error) error {
	var e *fusefs.MountError
	if !errors.As(err, &e) {
		return &fail.Error{Kind: fail.FUSE, Op: "mount on " + path, Err: words(err), Next: "see the log, and ls -l /dev/fuse"}
	}
	kind := fail.FUSE
	for _, is := range []error{
		fusefs.ErrMountpoint, fusefs.ErrMountpointBusy, fusefs.ErrMountpointDead, fusefs.ErrMountpointNotEmpty,
	} {
		if errors.Is(e.Err, is) {
			kind = fail.Mountpoint
		}
	}
	next := e.Next
	if errors.Is(e.Err, fusefs.ErrNoDevice) {
		next += "; fsmount serve works without it"
	}
	return &fail.Error{Kind: kind, Op: "mount on " + e.Mountpoint, Err: words(e.Err), Next: next}
}

// unmount takes the mount away and waits until nothing serves it. Programs that
// do not close their files there in time lose them.
func (n *Node) unmount() error {
	m := n.mount.Load()
	if m == nil {
		return nil
	}
	select {
	case <-m.done: // somebody else unmounted it
		return nil
	default:
	}
	// What was written so far must not depend on how the unmounting goes.
	flushed := n.vol.SaveAll(context.Background())
	err := m.server.Unmount()
	<-m.done
	if errors.Is(err, fusefs.ErrStillMounted) {
		n.log.Warn("the mount is also somewhere out of reach, as in a container, and dies there with this process", "error", err)
		err = nil
	}
	return errors.Join(flushed, err)
}

// notifier tells kernel caches of changes made beside the mount; nil without one.
func (n *Node) notifier() volume.Notifier {
	if m := n.mount.Load(); m != nil {
		return m.server.Notifier()
	}
	return nil
}
