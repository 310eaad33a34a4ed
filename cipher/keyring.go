package cipher

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	// ErrUnknownEpoch is returned when a key is needed that the keyring lacks: it may
	// come later.
	ErrUnknownEpoch = errors.New("no key of this epoch")
	// ErrDamaged is returned for bytes that were not sealed as they are, by nobody
	// who has the key.
	ErrDamaged = errors.New("damaged or forged")
	// ErrTooLarge is returned when there is more to seal than the format allows.
	ErrTooLarge = errors.New("too large to seal")
)

// Keyring holds the keys of a volume's epochs: it seals under the current one and
// opens what was sealed under any. The zero Keyring is empty and ready. It may be
// used from several goroutines.
type Keyring struct {
	mu    sync.Mutex // held by those that replace state
	state atomic.Pointer[ringState]
}

// ringState is never changed, only replaced.
type ringState struct {
	epochs  map[EpochID]*epochKeys
	current EpochID
	set     bool // whether there is a current epoch
}

// epochKeys are what is derived from an epoch's secret, each for one purpose.
type epochKeys struct {
	id    EpochID
	kinds [kindEnd]kindKeys
	dedup *keyedHash
}

// kindKeys are the keys of one kind of sealed thing.
type kindKeys struct{ siv, enc *keyedHash }

func newEpochKeys(k EpochKey) *epochKeys {
	e := &epochKeys{id: k.ID, dedup: derive("forever 1 epoch: duplicates", k.Secret[:])}
	e.kinds[kindChunk] = kindKeys{
		siv: derive("forever 1 epoch: synthetic IV of chunks", k.Secret[:]),
		enc: derive("forever 1 epoch: keys of chunks", k.Secret[:]),
	}
	e.kinds[kindBatch] = kindKeys{
		siv: derive("forever 1 epoch: synthetic IV of batches", k.Secret[:]),
		enc: derive("forever 1 epoch: keys of batches", k.Secret[:]),
	}
	return e
}

// Add takes a key. An epoch whose key is there keeps it. The current epoch does not
// change.
func (k *Keyring) Add(key EpochKey) {
	k.replace(func(s *ringState) {
		if s.epochs[key.ID] == nil {
			s.epochs[key.ID] = newEpochKeys(key)
		}
	})
}

// SetCurrent chooses the epoch to seal under. If its key is not there, sealing
// fails with ErrUnknownEpoch until it is.
func (k *Keyring) SetCurrent(id EpochID) {
	k.replace(func(s *ringState) { s.current, s.set = id, true })
}

// Current returns the epoch that is sealed under; zero if none was chosen.
func (k *Keyring) Current() EpochID { return k.load().current }

// Epochs returns the epochs whose keys are there, in the order of their IDs.
func (k *Keyring) Epochs() []EpochID {
	return slices.SortedFunc(maps.Keys(k.load().epochs), func(a, b EpochID) int { return bytes.Compare(a[:], b[:]) })
}

// Seal seals a block of content or a node of a block tree, at most chunk.MaxPlain
// bytes, under the current epoch. It appends the chunk, at most chunk.MaxSealed
// bytes, to dst and returns the extended slice. plain must not lie in dst's spare
// capacity. On error the result is dst.
func (k *Keyring) Seal(dst, plain []byte) ([]byte, error) {
	e, err := k.sealing()
	if err != nil {
		return dst, fmt.Errorf("seal chunk: %w", err)
	}
	sealed, err := e.seal(dst, plain, kindChunk, nil)
	if err != nil {
		return dst, fmt.Errorf("seal chunk: %w", err)
	}
	return sealed, nil
}

// Open appends to dst what Seal sealed and returns the extended slice. sealed must
// not lie in dst's spare capacity. On error the result is dst; errors wrap
// ErrUnknownEpoch or ErrDamaged.
func (k *Keyring) Open(dst, sealed []byte) ([]byte, error) {
	plain, err := k.load().open(dst, sealed, kindChunk, nil)
	if err != nil {
		return dst, fmt.Errorf("open chunk: %w", err)
	}
	return plain, nil
}

// MaxBatch is the greatest length of a batch before it is sealed, in bytes.
const MaxBatch = 16 << 20

// SealBatch seals a batch of ops, at most MaxBatch bytes, under the current epoch
// and binds it to aad, which OpenBatch must be given again.
func (k *Keyring) SealBatch(plain, aad []byte) ([]byte, error) {
	e, err := k.sealing()
	if err != nil {
		return nil, fmt.Errorf("seal batch: %w", err)
	}
	sealed, err := e.seal(nil, plain, kindBatch, aad)
	if err != nil {
		return nil, fmt.Errorf("seal batch: %w", err)
	}
	return sealed, nil
}

// OpenBatch returns what SealBatch sealed with the same aad. Errors wrap
// ErrUnknownEpoch or ErrDamaged.
func (k *Keyring) OpenBatch(sealed, aad []byte) ([]byte, error) {
	plain, err := k.load().open(nil, sealed, kindBatch, aad)
	if err != nil {
		return nil, fmt.Errorf("open batch: %w", err)
	}
	return plain, nil
}

// DedupKey returns what finds plain again among the blocks sealed under the current
// epoch: a keyed hash that never leaves the device. It is zero if the current
// epoch's key is not there.
func (k *Keyring) DedupKey(plain []byte) [32]byte {
	e, err := k.sealing()
	if err != nil {
		return [32]byte{}
	}
	return e.dedup.sum(plain)
}

var emptyRing ringState

func (k *Keyring) load() *ringState {
	if s := k.state.Load(); s != nil {
		return s
	}
	return &emptyRing
}

func (k *Keyring) replace(change func(*ringState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := *k.load()
	if s.epochs = maps.Clone(s.epochs); s.epochs == nil {
		s.epochs = map[EpochID]*epochKeys{}
	}
	change(&s)
	k.state.Store(&s)
}

// sealing returns the keys of the current epoch.
func (k *Keyring) sealing() (*epochKeys, error) {
	s := k.load()
	if !s.set {
		return nil, fmt.Errorf("%w: no current epoch", ErrUnknownEpoch)
	}
	e := s.epochs[s.current]
	if e == nil {
		return nil, fmt.Errorf("%w: %v", ErrUnknownEpoch, s.current)
	}
	return e, nil
}
