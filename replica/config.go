package replica

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/transport"
)

// Position is a place in a store's order of arrival. Positions of one store
// compare as bytes, earlier first; the zero Position is before everything.
type Position [12]byte

func (p Position) after(o Position) bool { return bytes.Compare(p[:], o[:]) > 0 }

// Item is one chunk in a store's order of arrival.
type Item struct {
	ID   chunk.ID
	Size int      // sealed, in bytes
	Pos  Position // behind the chunk: Since(Pos) goes on with the next
}

// Store holds the chunks of this device. Its methods are safe for concurrent use.
type Store interface {
	// Get appends the verified bytes of id to dst. It fails if they are not here or damaged.
	Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error)
	// Put stores sealed bytes if their hash is id. They are readable at once and durable after Sync.
	Put(ctx context.Context, id chunk.ID, sealed []byte) (added bool, err error)
	// Has reports whether id is here.
	Has(id chunk.ID) (bool, error)
	// Full reports whether there is no room for more.
	Full() bool
	// Sync makes everything put before durable.
	Sync(ctx context.Context) error
	// End is the position behind the last chunk.
	End() Position
	// Since returns up to max chunks behind pos, in order of arrival.
	Since(pos Position, max int) ([]Item, error)
	// Range calls fn for the durable chunks with from ≤ ID < to, in order of ID,
	// until it returns false. A zero to means no end.
	Range(from, to chunk.ID, fn func(id chunk.ID, size int) bool) error
}

// WrappedKey is an epoch key wrapped for one device.
type WrappedKey struct {
	Epoch EpochID
	Key   []byte
}

// Config says what a Replica is made of. Volume, Identity, KV, Store and Transport
// are required.
type Config struct {
	Volume   VolumeID
	Identity ed25519.PrivateKey
	// KV keeps logs ('l'), the control log ('c') and what is known of peers
	// ('r'); other prefixes are not touched.
	KV    kv.DB
	Store Store
	// Transport makes the transport; the replica brings the handshake.
	Transport func(transport.Handshaker) (transport.Transport, error)
	// Listen is the address to listen at; empty: only dial.
	Listen string
	// Bootstrap are addresses at which some device of the volume may answer.
	Bootstrap []string
	Logger    hclog.Logger // nil: none

	// Admit wraps all epoch keys to a newcomer's box key, bound to info. Nil on
	// a keyless replica, which then admits nobody as a member.
	Admit func(box, info []byte) ([]WrappedKey, error)
	// NewEpoch makes an epoch and wraps its key for the members and the recovery key;
	// Rewrap wraps the key of an epoch held here for one device, or, if that is zero,
	// the recovery key, whose box key it gets. Nil on a keyless replica.
	NewEpoch func(members []Device, recovery RecoveryPublic) (EpochID, []Wrap, error)
	Rewrap   func(epoch EpochID, device DeviceID, box []byte) ([]byte, error)
	// Deliver is called for every envelope that this process did not append,
	// each author's in order, from one goroutine, after it was stored. ErrLater
	// has it called again once others were delivered; another error is logged and
	// the author's envelopes are tried again after a while. Nil: nothing to deliver.
	Deliver func(Envelope) error
	// ControlChanged is called from the goroutine of Deliver, before envelopes
	// that may depend on it, when the control log has grown. May be nil.
	ControlChanged func()

	// Outrun is called when a member says that this device cannot go on from what it
	// has: a batch of its own is refused, or, with a zero author, it needs batches that are gone. May be nil.
	Outrun func(author AuthorID, seq uint64)

	// FetchTimeout bounds one Fetch; 0 means 10 s.
	FetchTimeout time.Duration
	// FetchGrace is how long Fetch goes on asking when everybody connected
	// has said no, or nobody is connected; 0 means 2 s.
	FetchGrace time.Duration
	// AckInterval is the shortest time between two flushes made to acknowledge
	// to others what they sent; 0 means 100 ms.
	AckInterval time.Duration
	// CompareEvery is how often the stores of two devices are compared, so that one
	// mends the other; 0 means a day. CompareDelay is how long after connecting at
	// the earliest; 0 means a minute.
	CompareEvery, CompareDelay time.Duration
	// RetryMin and RetryMax bound the pause before a lost peer is dialed again;
	// 0 means 250 ms and 30 s.
	RetryMin, RetryMax time.Duration
	// Now is the wall clock; nil means time.Now. It is shown and decides when
	// invites expire, nothing else.
	Now func() time.Time
}

func (c *Config) setDefaults() error {
	if c.Store == nil || c.Transport == nil {
		return errors.New("replica: config without store or transport")
	}
	return c.setStateDefaults()
}

// setStateDefaults is setDefaults for work on the state alone.
func (c *Config) setStateDefaults() error {
	if len(c.Identity) != ed25519.PrivateKeySize || c.KV == nil {
		return errors.New("replica: config without identity or state")
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.FetchTimeout = cmp.Or(c.FetchTimeout, 10*time.Second)
	c.FetchGrace = cmp.Or(c.FetchGrace, 2*time.Second)
	c.AckInterval = cmp.Or(c.AckInterval, 100*time.Millisecond)
	c.CompareEvery = cmp.Or(c.CompareEvery, 24*time.Hour)
	c.CompareDelay = cmp.Or(c.CompareDelay, time.Minute)
	c.RetryMin = cmp.Or(c.RetryMin, 250*time.Millisecond)
	c.RetryMax = cmp.Or(c.RetryMax, 30*time.Second)
	return nil
}

func (c *Config) self() DeviceID {
	return DeviceID(c.Identity.Public().(ed25519.PublicKey))
}
