package fusefs

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/volume"
)

// notes gathers what the kernel must be told of changes from elsewhere, and tells
// it. What has not been told yet is kept once however often it changes.
type notes struct {
	// privileges counts changes of security.capability, and whatever others changed, so that writers look again.
	privileges atomic.Uint64

	// changes counts invalidations. It is moved with replying held, before the
	// kernel is told: a reply that began before is either written by
	// then, and overtaken by the notification, or says that it is not to be kept.
	changes  atomic.Uint64
	replying sync.RWMutex

	mu      sync.Mutex
	quick   pending
	slow    pending
	wake    chan struct{} // capacity 1; for the quick goroutine
	wakeFar chan struct{} // capacity 1; for the slow one
	epochs  bool          // the kernel knows epochs; set before start
	stopped bool          // nobody is told any more

	pages    *pages
	inFlight inFlight

	// listings has when READDIRPLUS was last answered on open directories, as long as no later
	// request shows that the kernel has taken in the answer.
	listings map[fuse.HandleID]time.Time
}

// listed notes an answer to READDIRPLUS. It is called while that is written.
func (n *notes) listed(h fuse.HandleID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listings[h] = time.Now()
}

// taken notes that the kernel is done with what was listed on a handle.
func (n *notes) taken(h fuse.HandleID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listings, h)
}

// listing reports whether the kernel may be at an answer to READDIRPLUS. Who reads on
// after a long time has taken in what came before.
func (n *notes) listing() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := false
	for h, at := range n.listings {
		if time.Since(at) < 5*echoDelay {
			found = true
		} else {
			delete(n.listings, h)
		}
	}
	return found
}

// echoDelay is when something is told again that may have reached the kernel
// between an answer and its use there: no lock of ours covers that moment.
const echoDelay = 20 * time.Millisecond

var _ volume.Notifier = (*notes)(nil)

// pending is what one goroutine has yet to tell.
type pending struct {
	inodes map[uint64]struct{}
	names  map[entryName]struct{}
	dirs   map[uint64]struct{}
	epoch  bool
	// echoes and echoEpoch are told for the second and last time.
	echoes    map[uint64]struct{}
	echoEpoch bool
	settled   []func() // to be called when all before is told
}

type entryName struct {
	parent uint64
	name   string
}

func (p *pending) addInode(ino uint64) {
	if p.inodes == nil {
		p.inodes = map[uint64]struct{}{}
	}
	p.inodes[ino] = struct{}{}
}

func newNotes() *notes {
	n := &notes{pages: newPages(), listings: map[fuse.HandleID]time.Time{}, wake: make(chan struct{}, 1), wakeFar: make(chan struct{}, 1)}
	n.inFlight.begin(inFlightFor)
	return n
}

// InvalidateAttr has the kernel ask again for the attributes of an inode.
func (n *notes) InvalidateAttr(ino uint64) {
	n.privileges.Add(1)
	n.mu.Lock()
	n.quick.addInode(ino)
	n.mu.Unlock()
	wake(n.wake)
}

// tellAttr is InvalidateAttr that returns when the kernel has been told, or when ctx ends. It takes no lock in the kernel.
func (n *notes) tellAttr(ctx context.Context, ino uint64) {
	told := make(chan struct{})
	n.InvalidateAttr(ino)
	n.settle(false, func() { close(told) })
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// InvalidateContent has the kernel ask again for the attributes of a file, and drop its pages, which may take longer.
func (n *notes) InvalidateContent(ino uint64) {
	n.InvalidateAttr(ino)
	n.pages.ask(ino)
}

// Dropped implements volume.Notifier.
func (n *notes) Dropped(ino uint64, done func()) { n.pages.dropped(ino, done) }

// InvalidateEntry has the kernel look up a name again, and ask for its directory's attributes.
func (n *notes) InvalidateEntry(parent uint64, name string) {
	n.mu.Lock()
	n.quick.addInode(parent)
	if n.epochs {
		n.quick.epoch = true
	} else {
		if n.slow.names == nil {
			n.slow.names = map[entryName]struct{}{}
		}
		n.slow.names[entryName{parent, name}] = struct{}{}
	}
	n.mu.Unlock()
	wake(n.wake)
	if !n.epochs {
		wake(n.wakeFar)
	}
}

// InvalidateDir has the kernel look up every name of a directory again. Without
// epochs that is every name that is there now; one that is gone, and that the
// kernel remembers, lives until its time is over.
func (n *notes) InvalidateDir(ino uint64) {
	n.mu.Lock()
	n.quick.addInode(ino)
	if n.epochs {
		n.quick.epoch = true
	} else {
		if n.slow.dirs == nil {
			n.slow.dirs = map[uint64]struct{}{}
		}
		n.slow.dirs[ino] = struct{}{}
	}
	n.mu.Unlock()
	wake(n.wake)
	if !n.epochs {
		wake(n.wakeFar)
	}
}

// Settle implements volume.Notifier. What waits for requests under way is waited for only a little, if
// at all: pages, which a file shows until they are dropped, and not names where the kernel
// has no epochs; such a kernel is given no names to keep (see nameValidity).
func (n *notes) Settle(forget bool, done func()) {
	if list := n.pages.settling(); len(list) > 0 {
		late := done
		done = func() { n.pages.settle(list, late) }
	}
	n.settle(forget, done)
}

// settle is Settle for who does not care about pages.
func (n *notes) settle(forget bool, done func()) {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		done()
		return
	}
	if forget && !n.epochs { // names that were given before go by themselves
		late := done
		done = func() { time.AfterFunc(shortValidity, late) }
	}
	n.quick.epoch = n.quick.epoch || forget && n.epochs
	n.quick.settled = append(n.quick.settled, done)
	n.mu.Unlock()
	wake(n.wake)
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// take returns what has gathered in p and starts it anew.
func (n *notes) take(p *pending) pending {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := *p
	*p = pending{}
	return got
}

// whileReplying runs reply, which writes an answer to the kernel. fresh is
// false if something was invalidated since changes was read.
func (n *notes) whileReplying(changes uint64, reply func(fresh bool)) {
	n.replying.RLock()
	defer n.replying.RUnlock()
	reply(n.changes.Load() == changes)
}

// moved makes replies under way worthless for caches.
func (n *notes) moved() {
	n.replying.Lock()
	n.changes.Add(1)
	n.replying.Unlock()
}

// start runs the two goroutines, and those that drop pages; stop ends them and waits.
func (n *notes) start(s *Server) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	run := func(wake chan struct{}, tell func(*Server)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-quit:
					return
				case <-wake:
					tell(s)
				}
			}
		}()
	}
	run(n.wake, n.tellQuick)
	run(n.wakeFar, n.tellSlow)
	n.pages.start(s.dropPages, s.holdsPages)
	return func() {
		close(quit)
		n.pages.stop()
		wg.Wait()
		n.mu.Lock()
		n.stopped = true
		n.mu.Unlock()
		for _, p := range []*pending{&n.quick, &n.slow} {
			q := n.take(p)
			q.settle()
		}
	}
}

func (p *pending) settle() {
	for _, done := range p.settled {
		done()
	}
}

// tellQuick sends what takes no lock in the kernel. An error says that the kernel does
// not know the inode, or is gone. It may be about to know it from an
// answer that it has already: such inodes are told again.
func (n *notes) tellQuick(s *Server) {
	p := n.take(&n.quick)
	n.moved()
	again := pending{settled: p.settled}
	if p.epoch || p.echoEpoch {
		_ = s.incEpoch()
		// The kernel gives names from READDIRPLUS the epoch at which it enters them.
		again.echoEpoch = p.epoch && n.listing()
	}
	patience := time.Now().Add(answerPatience)
	for ino := range p.inodes {
		s.answers.taken(ino, patience)
		if !s.answers.forget(ino) {
			continue
		}
		if err := s.conn.InvalidateNode(fuse.NodeID(ino), -1, 0); err != nil && s.vol.InKernel(ino) {
			s.answers.keep(ino)
			if again.echoes == nil {
				again.echoes = map[uint64]struct{}{}
			}
			again.echoes[ino] = struct{}{}
		}
	}
	for ino := range p.echoes {
		_ = s.conn.InvalidateNode(fuse.NodeID(ino), -1, 0)
	}
	if again.echoEpoch || again.echoes != nil {
		time.AfterFunc(echoDelay, func() { n.echo(again) })
		return
	}
	again.settle()
}

// echo has told again what is in p.
func (n *notes) echo(p pending) {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		p.settle()
		return
	}
	n.quick.settled = append(n.quick.settled, p.settled...)
	n.quick.echoEpoch = n.quick.echoEpoch || p.echoEpoch
	if n.quick.echoes == nil {
		n.quick.echoes = p.echoes
	} else {
		maps.Copy(n.quick.echoes, p.echoes)
	}
	n.mu.Unlock()
	wake(n.wake)
}

// tellSlow sends what may wait for requests under way, but for the dropping of pages.
func (n *notes) tellSlow(s *Server) {
	p := n.take(&n.slow)
	n.moved()
	for e := range p.names {
		_ = s.conn.InvalidateEntry(fuse.NodeID(e.parent), e.name)
	}
	for ino := range p.dirs {
		s.forgetNames(ino)
	}
}

// mayKeep reports whether the pages that the kernel has of a file may be right.
func (n *notes) mayKeep(ino uint64) bool { return n.pages.last(ino) == nil }

// dropPages has the kernel drop the pages of a file, and waits for it. Then it has it know how long the file is: what lies between
// the old end and the new one must not be taken from the old last page.
func (s *Server) dropPages(ino uint64) {
	s.answers.taken(ino, time.Now().Add(answerPatience))
	if err := s.conn.InvalidateNode(fuse.NodeID(ino), 0, 0); err == nil {
		s.lengthen(ino)
	}
}

// forgetNames has the kernel look up again what is in a directory now.
func (s *Server) forgetNames(ino uint64) {
	d, err := s.vol.OpenDir(s.ctx, ino)
	if err != nil { // it is gone, and so is what the kernel knows of it
		return
	}
	defer d.Release()
	for cookie := uint64(0); ; {
		page, err := d.Read(cookie, 256)
		if err != nil || len(page) == 0 {
			return
		}
		for _, e := range page {
			cookie = e.Cookie
			_ = s.conn.InvalidateEntry(fuse.NodeID(ino), e.Name)
		}
	}
}

// incEpoch has every name that the kernel remembers, existing or not, looked up
// again at its next use. Kernels before 6.16 refuse it.
func (s *Server) incEpoch() error {
	var msg [outHeaderSize]byte
	putOutHeader(msg[:], 0, notifyIncEpoch)
	return s.writeMessage(msg[:])
}
