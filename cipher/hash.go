package cipher

import (
	"sync"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/internal/hashtree"
)

// keyedHash is BLAKE3 under a key. Its hashers, 10 KiB each, are kept for the next
// call.
type keyedHash struct {
	key  [32]byte
	pool sync.Pool
}

// derive makes a keyed hash of the secret's subkey for a purpose. Purposes are
// constants.
func derive(purpose string, secret []byte) *keyedHash {
	k := &keyedHash{}
	blake3.DeriveKey(purpose, secret, k.key[:])
	return k
}

func newKeyedHash(key [32]byte) *keyedHash { return &keyedHash{key: key} }

// sum returns the hash of p.
func (k *keyedHash) sum(p []byte) (out [32]byte) {
	if len(p) > hashtree.GroupSize { // on the fastest processors a third faster
		return hashtree.SumKeyed(&k.key, p)
	}
	h, _ := k.pool.Get().(*blake3.Hasher)
	if h == nil {
		var err error
		if h, err = blake3.NewKeyed(k.key[:]); err != nil {
			panic(err) // only for a key of another length
		}
	}
	_, _ = h.Write(p)
	h.Sum(out[:0])
	h.Reset()
	k.pool.Put(h)
	return out
}
