package lock

import (
	"cmp"
	"time"
)

// Peer names another mount's device.
type Peer [32]byte

// Log names the log that one start of a mount writes.
type Log [16]byte

// File names a file.
type File [16]byte

// Op names a request that waits; the caller chooses it, unique among those under way.
type Op uint64

// Class separates locks that have nothing to do with each other.
type Class uint8

// The classes.
const (
	Record Class = iota // of fcntl(2), owned by a process or an open file description
	Flock               // of flock(2), owned by an open file description
)

// Lock is a lock on a range of a file.
type Lock struct {
	Class      Class
	Exclusive  bool
	Start, End uint64 // both inclusive
}

// overlaps reports whether two locks have a byte in common.
func (l *Lock) overlaps(o *Lock) bool {
	return l.Class == o.Class && l.Start <= o.End && o.Start <= l.End
}

// alike reports whether two locks differ in their ranges only.
func (l *Lock) alike(o *Lock) bool { return l.Class == o.Class && l.Exclusive == o.Exclusive }

// clashes reports whether two locks of different owners exclude each other.
func (l *Lock) clashes(o *Lock) bool { return l.overlaps(o) && (l.Exclusive || o.Exclusive) }

// Held is a lock and who holds it on this mount.
type Held struct {
	Lock
	Owner  uint64
	Handle uint64 // through which it was set last
	PID    uint32 // told to whoever asks for the holder
}

// Position is a place in a log.
type Position struct {
	Log Log
	Seq uint64
}

// Config says who this mount is and how long things take. Zero values get defaults.
type Config struct {
	Self Peer
	Log  Log
	// Patience is how long a peer that is not heard from counts; 0 means 500 ms.
	Patience time.Duration
	// Term is how long consent counts from the message that renewed it, on the own
	// clock; 0 means nine tenths of Patience.
	Term time.Duration
	// Beat is how often a session is renewed when there is nothing to say; 0 means an eighth of Patience.
	Beat time.Duration
	// Limit is how long a request that is not to wait for locks waits for peers; 0
	// means four times Patience. It counts as refused then.
	Limit time.Duration
	// Idle is how long consent is kept that is not used; 0 means 5 s.
	Idle time.Duration
	// MaxFiles is how many files may be locked or waited for here. Every peer may ask
	// for twice as many. 0 means 16384.
	MaxFiles int
	// MaxLocks is how many locks a file may have here, and how many a peer is shown or may show of
	// one; 0 means 4096. Unlocking in the middle and those who wait already may make it twice as many.
	MaxLocks int
	// Bound is until when an earlier life of this device may have consented to what
	// nobody knows here any more; until then nothing is locked.
	Bound time.Duration
}

func (c *Config) setDefaults() {
	c.Patience = cmp.Or(c.Patience, 500*time.Millisecond)
	c.Term = cmp.Or(c.Term, c.Patience*9/10)
	c.Beat = cmp.Or(c.Beat, c.Patience/8)
	c.Limit = cmp.Or(c.Limit, 4*c.Patience)
	c.Idle = cmp.Or(c.Idle, 5*time.Second)
	c.MaxFiles = cmp.Or(c.MaxFiles, 16384)
	c.MaxLocks = cmp.Or(c.MaxLocks, 4096)
}

// Stamp is since when a mount has been wanting a file. 0 is never.
type Stamp uint64

// Kind is what an Item says.
type Kind uint8

// The kinds.
const (
	Ask   Kind = 1 + iota // the sender wants the receiver's consent
	Give                  // the sender consents, and gives back the receiver's consent
	Show                  // the sender's locks are fewer than the receiver knows
	Leave                 // the sender gives back the receiver's consent, and waits for nothing
)

// Item says something about one file.
type Item struct {
	Kind  Kind
	File  File
	Stamp Stamp  // of Ask
	Want  bool   // of Give: the sender waits for locks of others
	Seq   uint64 // of Give and Show: the sender's log, to be applied first
	Locks []Lock // of Give and Show: the sender's
}

// Message is what one side tells the other.
type Message struct {
	Log   Log    // that the sender writes; in the first message of a link
	Mine  uint64 // the sender's session; 0: it needs nobody's consent
	Yours uint64 // the receiver's session, as far as it was heard of
	// Time is the sender's clock, Echo the last Time heard in the receiver's session. Beat asks for
	// an answer at once.
	Time  time.Duration
	Echo  time.Duration
	Beat  bool
	Clock Stamp
	Items []Item
}

// Event is what happens to a Machine.
type Event interface{ step(m *Machine) error }

// The events.
type (
	// LinkUp says that messages can be exchanged with a peer, anew if they could before.
	LinkUp struct{ Peer Peer }
	// LinkDown says that they cannot any more.
	LinkDown struct{ Peer Peer }
	// Receive is a message from a peer. Step returns an error if it breaks the rules.
	Receive struct {
		Peer    Peer
		Message Message
	}
	// Acquire asks for a lock, or with Test only who holds it up.
	Acquire struct {
		Op   Op
		File File
		Held
		Wait bool // for whoever holds it
		Test bool
		// Process says that the owner is one process, which cannot unlock while it
		// waits: then a circle of such waits is refused.
		Process bool
		// Drop has a Drop follow when what others wrote is applied, which is to be answered before the
		// request is done.
		Drop bool
		// Seq is how long this mount's log is with what was written under locks of the
		// owner that this one replaces.
		Seq uint64
	}
	// Release unlocks what an owner holds in a range, or with ByHandle everything that
	// was locked through a handle. What was written under it is in this mount's log up to Seq.
	// Step returns ErrTooMany if what is left would be too many locks.
	Release struct {
		File File
		Held
		ByHandle bool
		Seq      uint64
	}
	// Cancel says that a request is not to wait any longer. Done still follows.
	Cancel struct{ Op Op }
	// Applied says that a log is applied here up to Seq, and the kernel has been told.
	Applied struct{ Position }
	// Published answers Publish.
	Published struct {
		Token uint64
		Seq   uint64
	}
	// Dropped answers Drop.
	Dropped struct{ Op Op }
	// Tick says that time has passed.
	Tick struct{}
)

// Result is how a request ended.
type Result uint8

// The results.
const (
	Granted     Result = iota // or nobody holds it up, for a test
	Refused                   // somebody else holds a lock
	Deadlock                  // to wait would close a circle
	Interrupted               // by Cancel
	TooMany                   // locks
)

// Effect is what a Machine wants done.
type Effect interface{ effect() }

// The effects.
type (
	// Send says that Poll has a message for the peer.
	Send struct{ Peer Peer }
	// Done says that a request is over. Blocker is what held up a test, of several locks the one that starts first; it has no
	// PID if it is another mount's. If a peer did not answer in time, it is all that was asked for.
	Done struct {
		Op      Op
		Result  Result
		Blocker Held
	}
	// Publish has what was written into a file so far put into the log; Published answers.
	Publish struct {
		Token uint64
		File  File
	}
	// Drop has the kernel drop pages of a file that are older than what is applied; Dropped answers. A
	// request waits for it.
	Drop struct {
		Op   Op
		File File
	}
)

func (Send) effect()    {}
func (Done) effect()    {}
func (Publish) effect() {}
func (Drop) effect()    {}
