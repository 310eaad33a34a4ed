package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/kv"
)

// Keys in the state:
//
//	'c' index(8)              control entries in order of arrival
//	'l' 0 author(16)          head of an author's log
//	'l' 1 author(16) seq(8)   envelopes
//	'r' 'p' device(32)        what is known of a peer
//	'r' 'i' hash(32)          invites
//	'r' 'b'                   checkpoint that the logs begin at
//	'r' 'o'                   this device was outrun
//
// Numbers are big endian.

var (
	baseKey   = []byte{'r', 'b'}
	outrunKey = []byte{'r', 'o'}
)

func controlKey(index int) []byte {
	return binary.BigEndian.AppendUint64([]byte{'c'}, uint64(index))
}

func headKey(author AuthorID) []byte { return append([]byte{'l', 0}, author[:]...) }

func envelopeKey(author AuthorID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{'l', 1}, author[:]...), seq)
}

func peerKey(device DeviceID) []byte { return append([]byte{'r', 'p'}, device[:]...) }

func inviteKey(hash Hash) []byte { return append([]byte{'r', 'i'}, hash[:]...) }

func putProto(tx kv.Tx, key []byte, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %T: %w", m, err)
	}
	return tx.Put(key, b)
}

// getProto reads m and reports whether it was there.
func getProto(r kv.Reader, key []byte, m proto.Message) (bool, error) {
	b, err := r.Get(key)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return false, fmt.Errorf("decode %T: %w", m, err)
	}
	return true, nil
}

// scanAll calls fn for every key with the prefix until it fails.
func scanAll(r kv.Reader, prefix []byte, fn func(key, value []byte) error) error {
	var failed error
	err := r.Scan(prefix, kv.PrefixEnd(prefix), func(key, value []byte) bool {
		failed = fn(key, value)
		return failed == nil
	})
	return errors.Join(err, failed)
}
