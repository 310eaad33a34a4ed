package lease

import (
	"cmp"
	"time"
)

// Peer names another mount's device.
type Peer [32]byte

// Log names the log that one start of a mount writes.
type Log [16]byte

// Dir is a directory as it is watched: its name, and which log made it at which
// place in the order of all ops.
type Dir struct {
	ID    [16]byte
	Maker Log
	At    uint64
}

// Op names an operation that waits; the caller chooses it, unique among those under way.
type Op uint64

// Position is a place in a log.
type Position struct {
	Log Log
	Seq uint64
}

// Config says who this mount is and how long things take. Zero values get defaults.
type Config struct {
	Self Log
	// Patience is how long this side waits for a holder that it does not hear from; 0 means 500 ms.
	Patience time.Duration
	// Term is how long a lease lasts from the message that renewed it, on the
	// holder's clock; 0 means nine tenths of Patience.
	Term time.Duration
	// Limit is how long a peer that is alive may take to apply a change, or to
	// answer and be followed; 0 means Patience.
	Limit time.Duration
	// Beat is how often a lease is renewed when there is nothing to say; 0 means an eighth of Patience.
	Beat time.Duration
	// Idle is how long an unused directory is watched on; 0 means a minute.
	Idle time.Duration
	// MaxDirs is how many directories are watched; beyond that those not used for
	// longest are given back. Peers may watch twice as many here. 0 means 32768.
	MaxDirs int
	// Bound is until when promises of an earlier life of this device may bind, on this
	// machine's clock: Patience after that life may have ended. Nobody knows any
	// more to whom they were made, so until then every write waits.
	Bound time.Duration
}

func (c *Config) setDefaults() {
	c.Patience = cmp.Or(c.Patience, 500*time.Millisecond)
	c.Term = cmp.Or(c.Term, c.Patience*9/10)
	c.Limit = cmp.Or(c.Limit, c.Patience)
	c.Beat = cmp.Or(c.Beat, c.Patience/8)
	c.Idle = cmp.Or(c.Idle, time.Minute)
	c.MaxDirs = cmp.Or(c.MaxDirs, 32768)
}

// hard is how many directories may be watched at most, in either direction.
func (c *Config) hard() int { return 2 * c.MaxDirs }

// Message is what one side tells the other. All fields but those of the second
// half speak for the sender as the holder.
type Message struct {
	Log  Log    // the log that the sender writes; in the first message of a link
	Term uint64 // of the sender's lease; 0: it holds none
	Join bool   // Term begins
	Live bool   // the sender watches the directories that it made after Mark
	On   bool   // the term is on
	// Stamp is the sender's clock; Beat asks to have it said back at once.
	Stamp time.Duration
	Beat  bool
	// Drop lists what is not watched any more, Ask what is from now on, in this
	// order. Number counts the messages with an Ask, also an empty one.
	Drop   [][16]byte
	Ask    [][16]byte
	Number uint64
	Mark   uint64
	// Applied is how much of the receiver's log the sender has applied, its kernel included.
	Applied uint64

	// As the granter:
	Granted uint64        // the receiver's term that is granted; 0: none
	Echo    time.Duration // the last Stamp heard in that term
	Joined  bool          // the term has begun here; Need is what must be applied first
	Need    []Position
	Told    uint64 // every Ask up to this Number counts
	Upto    uint64 // how long the sender's log was after that
	Revoked uint64 // a term that is not granted any more
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
	// Observe begins a read of directories, or of files in them.
	Observe struct {
		Op   Op
		Dirs []Dir
	}
	// Write ends a change in directories that is in this mount's log up to Seq.
	Write struct {
		Op   Op
		Seq  uint64
		Dirs []Dir
	}
	// Cancel says that nobody waits for an operation any more.
	Cancel struct{ Op Op }
	// Applied says that a log is applied here up to Seq, and the kernel has been told.
	Applied struct{ Position }
	// Published answers Publish.
	Published struct {
		Seq    uint64
		Vector []Position // if it was asked for
	}
	// Flushed answers Flush.
	Flushed struct{ Token uint64 }
	// Dropped answers Drop; Kept is what the kernel would not let go.
	Dropped struct {
		Token uint64
		Kept  [][16]byte
	}
	// Tick says that time has passed.
	Tick struct{}
	// Leave gives up everything for good: the mount ends.
	Leave struct{}
)

// Effect is what a Machine wants done.
type Effect interface{ effect() }

// The effects.
type (
	// Send says that Poll has a message for the peer.
	Send struct{ Peer Peer }
	// Done says that an operation need not wait any more.
	Done struct{ Op Op }
	// Publish has everything that was reported as done so far put into the log;
	// Published answers. With Vector all that is applied here is to be named too.
	Publish struct{ Vector bool }
	// Flush has the kernel forget everything; Flushed answers.
	Flush struct{ Token uint64 }
	// Drop has the kernel forget all that it knows of directories; Dropped answers.
	// Unless Force is set, those that the kernel still holds may be kept.
	Drop struct {
		Token uint64
		Dirs  [][16]byte
		Force bool
	}
)

func (Send) effect()    {}
func (Done) effect()    {}
func (Publish) effect() {}
func (Flush) effect()   {}
func (Drop) effect()    {}
