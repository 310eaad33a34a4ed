package replica

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// Replica is this device's part in one volume. All methods are safe for
// concurrent use.
type Replica struct {
	cfg       Config
	self      DeviceID
	log       hclog.Logger
	instance  [16]byte
	transport transport.Transport
	// loadedControl is how many control entries Open found.
	loadedControl int
	fetches       *fetcher
	incoming      *incoming
	leases        *Leases // nil: none are kept
	locks         *Locks  // nil: none are shared

	// logMu orders changes of the logs: state first, then memory.
	logMu sync.Mutex

	mu        sync.Mutex
	control   *controlLog
	heads     map[AuthorID]head
	delivered map[AuthorID]uint64   // by Deliver, Replay or as our own
	undone    map[AuthorID]struct{} // authors with envelopes to deliver
	durable   map[AuthorID]uint64   // flushed, so may be acknowledged
	base      Hash                  // checkpoint that the stored logs begin at
	floors    map[AuthorID]uint64   // its vector; replaced whole, never changed
	refused   map[AuthorID]uint64   // the first batch of an author that the tree does not take
	unflushed map[AuthorID]struct{} // authors with envelopes to flush
	peers     map[DeviceID]*peer
	sessions  map[DeviceID]*session
	hints     map[string]*hint // by address
	splices   int              // that this device serves
	listener  transport.Listener
	// listenAddr is empty before Listen.
	listenAddr string
	// changed is closed and replaced when a waiter should look again,
	// sessionsChanged when a connection came or went.
	changed, sessionsChanged chan struct{}
	tallies                  map[DeviceID]*tally

	deliverWake chan struct{}
	ackWake     chan struct{}
	dialWake    chan struct{}
	settleWake  chan struct{}
	proposed    time.Time // when this device last added to the control log what somebody had asked for
	closing     context.Context
	close       context.CancelFunc
	wg          sync.WaitGroup
}

// head is the end of one author's log.
type head struct {
	seq    uint64
	hash   Hash
	device DeviceID
}

// Open loads the volume from the state. It fails with ErrNoVolume if there is none:
// see Create and Join. Nothing is sent or delivered before Serve. Open it
// before anything is put into the store: positions beyond the store's end,
// left by a crash, are pulled back to it.
func Open(cfg Config) (*Replica, error) {
	r, err := newReplica(cfg)
	if err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		r.close()
		return nil, fmt.Errorf("load replica: %w", err)
	}
	return r, nil
}

func newReplica(cfg Config) (*Replica, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, self: cfg.self(), log: cfg.Logger, control: newControlLog(cfg.Volume)}
	r.initMaps()
	_, _ = rand.Read(r.instance[:])
	r.closing, r.close = context.WithCancel(context.Background())
	r.incoming = newIncoming()
	r.fetches = newFetcher(r)
	var err error
	if r.transport, err = cfg.Transport(handshaker{r}); err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	return r, nil
}

func (r *Replica) initMaps() {
	r.heads = map[AuthorID]head{}
	r.delivered = map[AuthorID]uint64{}
	r.undone = map[AuthorID]struct{}{}
	r.durable = map[AuthorID]uint64{}
	r.refused = map[AuthorID]uint64{}
	r.unflushed = map[AuthorID]struct{}{}
	r.peers = map[DeviceID]*peer{}
	r.sessions = map[DeviceID]*session{}
	r.hints = map[string]*hint{}
	for _, addr := range r.cfg.Bootstrap {
		r.hints[addr] = &hint{stays: true}
	}
	r.changed = make(chan struct{})
	r.sessionsChanged = make(chan struct{})
	r.tallies = tallies{}
	r.deliverWake = make(chan struct{}, 1)
	r.ackWake = make(chan struct{}, 1)
	r.dialWake = make(chan struct{}, 1)
	r.settleWake = make(chan struct{}, 1)
}

func (r *Replica) load() error {
	if err := r.loadControl(); err != nil {
		return err
	}
	if err := r.loadHeads(); err != nil {
		return err
	}
	if err := r.loadBase(); err != nil {
		return err
	}
	if err := r.loadPeers(); err != nil {
		return err
	}
	if _, ok := r.control.known(r.self); !ok {
		return fmt.Errorf("%w: this device", ErrUnknownDevice)
	}
	// What a process left in the operating system's cache when it died is
	// acknowledged only once it is on disk.
	if err := r.cfg.KV.Sync(); err != nil {
		return fmt.Errorf("flush state: %w", err)
	}
	for a, h := range r.heads {
		r.durable[a] = h.seq
	}
	r.loadedControl = len(r.control.order)
	return nil
}

func (r *Replica) loadControl() error {
	err := scanAll(r.cfg.KV, []byte{'c'}, func(_, value []byte) error {
		s, err := parseSigned(value, maxControl)
		if err != nil {
			return err
		}
		e, err := parseEntry(r.cfg.Volume, s)
		if err != nil {
			return err
		}
		return r.control.restore(e)
	})
	if err != nil {
		return fmt.Errorf("load control log: %w", err)
	}
	r.control.evaluate()
	if len(r.control.order) == 0 {
		return ErrNoVolume
	}
	return nil
}

func (r *Replica) loadHeads() error {
	err := scanAll(r.cfg.KV, []byte{'l', 0}, func(key, value []byte) error {
		author, err := fixed16(key[2:], "author in the state")
		if err != nil {
			return err
		}
		h, err := parseHead(value)
		if err != nil {
			return err
		}
		r.heads[author] = h
		r.delivered[author] = h.seq
		return nil
	})
	if err != nil {
		return fmt.Errorf("load heads: %w", err)
	}
	return nil
}

// Close stops all work and waits for it; Serve returns. What was appended and
// not flushed stays in the state as it is. Close may be called twice.
func (r *Replica) Close() error {
	r.fetches.mu.Lock() // no Fetch starts from here on
	r.close()
	r.fetches.mu.Unlock()
	if r.leases != nil {
		r.leases.end()
	}
	if r.locks != nil {
		r.locks.end()
	}
	r.mu.Lock()
	l := r.listener
	r.mu.Unlock()
	if l != nil {
		_ = l.Close() // a second close says so, and means nothing
	}
	r.wg.Wait()
	return nil
}

// Self returns this device's ID.
func (r *Replica) Self() DeviceID { return r.self }

// Devices returns all devices of the volume, this one included, in the order of
// their admission.
func (r *Replica) Devices() []Device {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.deviceList()
}

// Policy returns the volume's settings.
func (r *Replica) Policy() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.settings()
}

// ControlHeads returns the heads of the control log, sorted.
func (r *Replica) ControlHeads() []Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.headList()
}

// Recovery returns the public halves of the recovery phrase in force.
func (r *Replica) Recovery() RecoveryPublic {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := recoveryIn(r.control.recovery)
	return RecoveryPublic{Sign: DeviceID(p.GetSign()), Box: [32]byte(p.GetBox())}
}

// Epochs returns the epoch keys wrapped for this device, and the epoch to write
// in. An epoch without a key for this device is left out.
func (r *Replica) Epochs() (keys []WrappedKey, current EpochID) {
	return r.epochsFor(r.self)
}

// RecoveryEpochs returns the epoch keys wrapped for the recovery key.
func (r *Replica) RecoveryEpochs() []WrappedKey {
	keys, _ := r.epochsFor(DeviceID{})
	return keys
}

func (r *Replica) epochsFor(device DeviceID) (keys []WrappedKey, current EpochID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.control.epochs {
		if w, ok := s.wraps[device]; ok && s.opened != nil {
			keys = append(keys, WrappedKey{id, w.key})
		}
	}
	current, found := r.control.currentEpoch()
	if !found || r.control.isOut(r.self) {
		current = r.control.lastEpochOf(device)
	}
	return keys, current
}

// broadcast lets everyone who waits for a change look again; mu is held.
func (r *Replica) broadcast() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func positions(vector map[AuthorID]uint64) []*replicapb.Position {
	out := make([]*replicapb.Position, 0, len(vector))
	for a, n := range vector {
		out = append(out, &replicapb.Position{Author: a[:], Seq: n})
	}
	return out
}

func vectorOf(list []*replicapb.Position) (map[AuthorID]uint64, error) {
	out := make(map[AuthorID]uint64, len(list))
	for _, p := range list {
		a, err := fixed16(p.GetAuthor(), "author")
		if err != nil {
			return nil, err
		}
		out[a] = p.GetSeq()
	}
	return out, nil
}
