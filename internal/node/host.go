package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/transport"
)

// A keyless replica can serve several volumes: the first has the data directory itself,
// each further one a whole data directory of its own inside it, DIR/volumes/ID, with keys, store,
// logs, quota and control socket of its own. One process runs them all behind one
// port. What happens to one does not touch the others, but for one whose state could not be written: its files stay open while
// the process lives, which therefore ends.

const (
	volumesName = "volumes"
	// scanInterval is how soon a volume that was joined meanwhile is served.
	scanInterval = time.Second
	// reopenAfter is how soon one that failed is tried again.
	reopenAfter = time.Minute
)

// volumes returns the data directories inside dir, by the IDs of their volumes in hexadecimal.
func volumes(dir string) (map[string]string, error) {
	out := map[string]string{}
	entries, err := os.ReadDir(filepath.Join(dir, volumesName))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	for _, e := range entries {
		if b, err := hex.DecodeString(e.Name()); err == nil && len(b) == len(cipher.VolumeID{}) {
			out[e.Name()] = filepath.Join(dir, volumesName, e.Name())
		}
	}
	return out, nil
}

// DirOf returns the data directory, which is dir or inside it, of the volume whose ID begins with prefix.
func DirOf(dir, prefix string) (string, error) {
	all, err := volumes(dir)
	if err != nil {
		return "", err
	}
	if f, err := readFormat(dir); err == nil {
		all[hex.EncodeToString(f.Volume[:])] = dir
	}
	var found []string
	for id, d := range all {
		if strings.HasPrefix(id, prefix) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", &fail.Error{Kind: fail.Usage, Op: "several volumes begin with " + prefix, Next: "give more of the ID"}
	}
	return "", &fail.Error{Kind: fail.Usage, Op: "no volume begins with " + prefix + " in " + dir, Next: "see fsmount status"}
}

// DirToJoin returns the data directory that the volume of an invite shall have: dir, or one inside it if dir
// belongs to a keyless replica and the invite lets in another.
func DirToJoin(dir, line string) (string, error) {
	inv, err := parseInvite(line)
	if err != nil {
		return "", err
	}
	f, err := readFormat(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && f.Creating {
		return dir, nil
	}
	if err != nil {
		return "", formatError(dir, err)
	}
	if f.Volume == [16]byte(inv.Volume) {
		return dir, nil // which says that it is there
	}
	if f.Role != RoleReplica || inv.Role.String() != RoleReplica {
		return "", &fail.Error{Kind: fail.Exists, Op: "data directory " + dir + " already holds another volume; only keyless replicas share one",
			Next: "choose another directory with --data"}
	}
	sub := filepath.Join(dir, volumesName, hex.EncodeToString(inv.Volume[:]))
	return sub, makeDirs(filepath.Dir(sub))
}

// Host runs the nodes of one process.
type Host struct {
	cfg  Config
	main *Node // nil if its volume cannot be served, and there are others

	mu     sync.Mutex
	nodes  map[string]*Node // by data directory
	failed map[string]failure

	ended  chan error // capacity 1: why the process should end
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// failure is why a volume is not served, and since when; zero: it may be served again at any time.
type failure struct {
	err error
	at  time.Time
}

// OpenHost opens the node of a data directory, and those of the further volumes in it. It fails
// if none can be served. The caller closes it.
func OpenHost(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, nodes: map[string]*Node{}, failed: map[string]failure{}, ended: make(chan error, 1)}
	h.cfg.Port = transport.NewPort(cfg.UploadLimit, cfg.DownloadLimit)
	ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	h.open(ctx, cfg.Dir)
	h.scan(ctx)
	h.main = h.nodes[cfg.Dir]
	if len(h.nodes) == 0 {
		return nil, h.failed[cfg.Dir].err
	}
	f, err := readFormat(cfg.Dir)
	if h.main != nil && err == nil && f.Role != RoleReplica {
		return h, nil
	}
	h.wg.Go(func() {
		tick := time.NewTicker(scanInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.scan(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return h, nil
}

// Main returns the node of the data directory itself; nil if only others can be served.
func (h *Host) Main() *Node { return h.main }

// Done says that the process should end by itself: because the first volume's node does, of which it gives what
// Node.Done gives, or because only another process can serve a volume again. It gives one value.
func (h *Host) Done() <-chan error { return h.ended }

// end makes Done speak; only the first reason counts.
func (h *Host) end(err error) {
	select {
	case h.ended <- err:
	default:
	}
}

// scan opens what is there and not served.
func (h *Host) scan(ctx context.Context) {
	dirs, err := volumes(h.cfg.Dir)
	if err != nil {
		h.cfg.Logger.Warn("cannot look for further volumes", "error", err)
		return
	}
	dirs[""] = h.cfg.Dir
	for _, dir := range slices.Sorted(maps.Values(dirs)) {
		h.mu.Lock()
		_, runs := h.nodes[dir]
		last := h.failed[dir].at
		h.mu.Unlock()
		if ready, err := Initialised(dir); runs || time.Since(last) < reopenAfter || err == nil && !ready || ctx.Err() != nil {
			continue
		}
		h.open(ctx, dir)
	}
}

// open serves one volume, until it ends by itself.
func (h *Host) open(ctx context.Context, dir string) {
	cfg := h.cfg
	cfg.Dir = dir
	if dir != h.cfg.Dir {
		cfg.Logger = cfg.Logger.Named(filepath.Base(dir)[:8])
	} else {
		cfg.Beside = h.beside
	}
	n, err := Open(ctx, cfg)
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, errHeld) {
		cfg.Logger.Error(errHeld.Error()+"; ending, to be started again", "error", err)
		h.end(err)
	}
	if err != nil {
		before := h.failed[dir]
		f := failure{err, time.Now()}
		if fail.KindOf(err) == fail.InUse { // by a command, for the moment: tried again with the next scan
			f.at = time.Time{}
		}
		h.failed[dir] = f
		if dir != h.cfg.Dir && (before.err == nil || !f.at.IsZero()) {
			cfg.Logger.Error("cannot serve this volume; will try again", "error", err)
		}
		return
	}
	delete(h.failed, dir)
	h.nodes[dir] = n
	h.wg.Go(func() {
		select {
		case err := <-n.Done():
			h.stopped(dir, n, cfg.Logger, err)
		case <-ctx.Done():
		}
	})
}

// stopped looks after a node that ended by itself.
func (h *Host) stopped(dir string, n *Node, log hclog.Logger, err error) {
	if dir == h.cfg.Dir {
		h.end(err)
		return
	}
	if n.held() {
		log.Error("stopped serving this volume: "+errHeld.Error()+"; ending, to be started again", "error", err)
		h.end(err)
		return
	}
	log.Error("stopped serving this volume; will try again", "error", err)
	err = errors.Join(err, n.Close())
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, dir)
	h.failed[dir] = failure{err, time.Now()}
}

// beside returns the volumes besides the first.
func (h *Host) beside() []control.Beside {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []control.Beside
	add := func(dir, problem string) {
		if dir != h.cfg.Dir {
			out = append(out, control.Beside{Volume: filepath.Base(dir), DataDir: dir, Problem: problem})
		}
	}
	for dir := range h.nodes {
		add(dir, "")
	}
	for dir, f := range h.failed {
		add(dir, f.err.Error())
	}
	slices.SortFunc(out, func(a, b control.Beside) int { return strings.Compare(a.Volume, b.Volume) })
	return out
}

// Close ends all nodes.
func (h *Host) Close() error {
	h.cancel()
	h.wg.Wait()
	h.mu.Lock()
	nodes := slices.Collect(maps.Values(h.nodes))
	h.mu.Unlock()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
