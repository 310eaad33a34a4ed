package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/transport"
	"github.com/foreverfs/forever/volume"
)

// Config says which node, and how it runs.
type Config struct {
	// Dir is the data directory, absolute.
	Dir string
	// Listen is the TCP address where peers reach this node; empty: nowhere,
	// it only dials.
	Listen string
	// Peers are addresses at which some device of the volume may answer, HOST:PORT.
	Peers []string
	// LAN has devices on the local network find each other.
	LAN bool
	// ReadOnly refuses changes from this node.
	ReadOnly bool
	// Eventual has nobody wait for other mounts: changes show there a moment later.
	Eventual bool
	// LocalLocks has file locks exclude only processes on this mount.
	LocalLocks bool
	// UploadLimit and DownloadLimit bound what goes to and comes from all other
	// devices together, in bytes per second; 0 means no limit.
	UploadLimit, DownloadLimit int64
	// Name is what other devices show for this one; empty means the host name.
	Name string
	// Logger must not be nil.
	Logger hclog.Logger
	// Passphrase returns what protects the key file, nil for nothing. It is asked
	// when keys are made, and when they are read and protected.
	Passphrase func(creating bool) ([]byte, error)
	// Version is shown in the status.
	Version string
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Checkpoints says when checkpoints are made.
	Checkpoints Checkpoints
	// Port is what this node listens on together with others; nil: alone. Its limits
	// take the place of those above.
	Port *transport.Port
	// SyncReplicas is how many other devices an fsync waits for; 0: none.
	SyncReplicas int
	// Quota is how much of the disk a volume that is joined may use, in bytes; 0 means
	// no limit. It is kept with the volume.
	Quota int64
	// Verify compares the tables with what they were before they are opened: a node that opens them may write
	// some of them anew, and what was damaged in there goes unseen.
	Verify bool
	// Beside returns the other volumes that this process serves from the data directory; may be nil.
	Beside func() []control.Beside
}

func (c Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return "device"
}

// Node is a running node. Its methods may be called from several goroutines.
type Node struct {
	cfg     Config
	log     hclog.Logger
	started time.Time
	dir     *dataDir
	format  format
	keys    keys
	state   *kv.Pebble
	store   *casstore.Store
	recent  recent
	budget  budget
	damage  damage
	sums    sums     // of files that do not change
	noticed []string // what was damaged when the node started
	damaged []string // tables of the state that were, if they were looked at
	repl    *replica.Replica
	epochs  *epochs        // nil on a keyless replica
	vol     *volume.Volume // nil on a keyless replica
	step    *inStep        // nil where nobody waits for anybody
	locks   *fileLocks     // nil where locks are not shared
	server  *http.Server
	// requests under way on the control socket
	requests atomic.Int64
	mount    atomic.Pointer[mount]
	refused  refusals
	begun    chan struct{} // closed once the volume is open
	behind   atomic.Bool   // the others went on without this device
	differs  atomic.Bool   // it came to another tree than a checkpoint says

	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	waiting     context.Context // ends when Close begins: requests that only wait go
	stopWaiting context.CancelFunc

	wg     sync.WaitGroup
	ended  chan error // capacity 1: why the node should end
	once   sync.Once
	closed error
	// unheard says that no other device knows the control log's last entries; set by Close
	unheard bool
}

// Open starts the node of an initialised data directory: it serves peers and the
// control socket on return. The caller closes it.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Logger, started: time.Now(), ended: make(chan error, 1), begun: make(chan struct{})}
	n.cfg.Checkpoints.setDefaults()
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.waiting, n.stopWaiting = context.WithCancel(n.ctx)
	if err := n.open(); err != nil {
		err = errors.Join(explain(cfg, err), n.Close())
		if n.held() {
			err = errors.Join(err, errHeld)
		}
		return nil, err
	}
	return n, nil
}

// errHeld says that a state could not be written, or the index of the chunks, and that its files stay locked while the process lives.
var errHeld = errors.New("only another process can open the data directory again")

// held reports whether that is so.
func (n *Node) held() bool {
	return n.state != nil && n.state.Err() != nil || n.store != nil && n.store.Held()
}

func (n *Node) open() (err error) {
	if n.dir, n.format, err = openDataDir(n.cfg.Dir); err != nil {
		return err
	}
	if err := n.compareSums(); err != nil {
		return err
	}
	if n.keys, err = loadKeys(n.dir, n.cfg.Passphrase); err != nil {
		return err
	}
	if err := n.dir.writeSums(n.sums, false); err != nil { // the others are for what changes from here on
		return err
	}
	if n.state, err = openState(n.dir, n.keys, n.format.Role, n.log.Named("state")); err != nil {
		return err
	}
	n.spawn("keep the state", n.watchState)
	n.spawn("hold disk space in reserve", n.keepReserve)
	if err := n.upgrade(); err != nil {
		return err
	}
	if err := n.loadDamage(); err != nil {
		return err
	}
	n.spawn("write down what is damaged", n.keepDamage)
	err = n.dir.inReserve(func() (err error) {
		n.store, err = casstore.Open(casstore.Config{
			Dir: n.dir.join(chunksName), Logger: n.log.Named("store"), Rebuilding: n.forgetIndexSums, Damaged: n.damage.note,
		})
		return err
	})
	if err != nil {
		return err
	}
	n.spawn("keep the index of the chunks", n.watchStore)
	if err := n.loadBudget(); err != nil {
		return err
	}
	if err := n.openReplica(n.deliver); err != nil {
		return err
	}
	if n.format.Role == RoleMember {
		if err := n.begin(); err != nil {
			return err
		}
		if err := n.openVolume(); err != nil {
			return err
		}
	}
	close(n.begun)
	if err := n.serveReplica(); err != nil {
		return err
	}
	n.seekOnLAN()
	if n.vol != nil {
		n.spawn("make checkpoints", n.checkpointLoop)
	}
	return n.serveControl()
}

// Done says that the node should end by itself: nil when its mount was taken
// away, else what failed. It gives one value.
func (n *Node) Done() <-chan error { return n.ended }

// end makes Done speak; only the first reason counts.
func (n *Node) end(err error) {
	select {
	case n.ended <- explain(n.cfg, err):
	default:
	}
}

// spawn runs fn until Close; what it returns before that ends the node.
func (n *Node) spawn(what string, fn func(context.Context) error) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := fn(n.ctx); n.ctx.Err() == nil {
			n.log.Error("stopped before its time", "part", what, "error", err)
			n.end(fmt.Errorf("%s: %w", what, err))
		}
	}()
}

// Close ends the node: no more requests, the mount, what is dirty, the peers, the
// stores, the lock. It may be called twice; both calls return the same.
func (n *Node) Close() error {
	n.once.Do(func() { n.closed = explain(n.cfg, n.shutdown()) })
	return n.closed
}

func (n *Node) shutdown() error {
	var errs []error
	step := func(what string, fn func() error) {
		if err := fn(); err != nil {
			n.log.Error("cannot end in good order", "step", what, "error", err)
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	step("end control socket", n.closeControl)
	step("unmount", n.unmount)
	if n.step != nil {
		n.step.leases.Leave()
	}
	if n.vol != nil {
		step("flush the volume", n.vol.Close)
	}
	n.takeLeave()
	n.cancel()
	n.wg.Wait()
	if n.dir != nil {
		step("give the reserve back", n.spendReserve)
	}
	if n.repl != nil {
		step("leave peers", n.repl.Close)
	}
	if n.store != nil {
		step("write down what is damaged", n.saveDamage)
		step("close the chunk store", n.store.Close)
	}
	if n.state != nil {
		step("close the state", n.state.Close)
	}
	if n.dir != nil && n.state != nil && len(errs) == 0 {
		step("sum files up", func() error { return n.dir.writeSums(n.sums, true) })
	}
	if n.dir != nil {
		step("unlock", n.dir.Close)
	}
	return errors.Join(errs...)
}

// leavePatience is how long a node that ends waits for connected devices to take
// its last changes.
const leavePatience = 2 * time.Second

// tellPatience is how long a node that ends waits for some device to take what this one has just added to the control
// log, such as a revocation: it may have to be dialed first.
const tellPatience = 5 * time.Second

// takeLeave lets connected devices have what was published last, so that they need
// not wait for this node's next start.
func (n *Node) takeLeave() {
	if n.repl == nil {
		return
	}
	n.tellControl()
	st, err := n.repl.Status()
	if err != nil || st.Connected == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, leavePatience)
	defer cancel()
	if err := n.repl.Wait(ctx, st.Connected, nil); err != nil {
		n.log.Info("ending before every connected device has everything", "devices", st.Connected)
	}
}

// tellControl sees to it that some other device has what was added to the control log a moment ago.
func (n *Node) tellControl() {
	if time.Since(n.repl.LastProposed()) > tellPatience || len(n.repl.Devices()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, tellPatience)
	defer cancel()
	if err := n.repl.AwaitControl(ctx); err != nil {
		n.log.Warn("ending before any other device has heard of the last change to the volume's devices and settings")
		n.unheard = true
	}
}

// Unheard reports, after Close, that no other device has heard of what was added to the control log last.
func (n *Node) Unheard() bool { return n.unheard }

// newAuthor names this start of the device: one incarnation, one log.
func newAuthor(device cipher.DeviceID) namespace.AuthorID {
	var start [8]byte
	_, _ = rand.Read(start[:])
	return namespace.AuthorID(replica.AuthorOf(replica.DeviceID(device), start))
}

// diskUsage reports the space of the file system that the data directory is on.
func (n *Node) diskUsage() (total, free uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(n.dir.path, &st); err != nil {
		return 0, 0, err
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

func errKeyless() error {
	return &fail.Error{Kind: fail.Keyless, Op: "this node is a keyless replica: it holds only ciphertext", Next: "ask a member"}
}
