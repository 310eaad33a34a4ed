// Package cipher turns plaintext into what may leave a device, and back. It holds
// the keys of a volume ([Keyring], [EpochKey]), the identity of a device
// ([Device]), what lets a newcomer in ([Invite]), what brings a volume back
// ([Phrase]) and the file in which a device keeps its own keys.
//
// Sealing is deterministic: within an epoch the same bytes give the same chunk, so
// that equal chunks are stored once. Each message has a key of its own, derived
// from the epoch's key and a synthetic IV, a keyed hash of all that is encrypted;
// no nonce can be used twice. Opening derives the IV anew and compares, so a chunk
// opens under one key only. Bytes from outside are checked before memory is taken
// for them, and never cause more than an error.
//
// All functions and methods may be called from several goroutines at once. Types
// that hold secrets print without them; Invite and Phrase are made to be shown.
//
// The formats are in docs/format: sealed-chunk.md, keys.md, phrase.md, invite.md.
package cipher
