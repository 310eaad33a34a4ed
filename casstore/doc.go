// Package casstore keeps sealed chunks on this disk. A chunk is named by the
// BLAKE3-256 hash of its bytes, so the store can check everything it holds
// without a key, and a chunk never changes once it is stored.
//
// [Store] is the backend for production: chunks are appended to pack files,
// and an index (pebble, without a log of its own) says where each one lies.
// [Files] is the plain backend: one file per chunk. Both pass the same tests
// and have the same contract:
//
//   - Put makes a chunk readable at once; Sync makes everything put before
//     durable. A crash may lose what no Sync covered, and nothing else.
//   - Get returns verified bytes or an error, never damaged ones. Store.Part does so
//     for a part of a chunk, which it reads without the rest.
//   - Since lists chunks in order of arrival, from a Position that stays
//     meaningful across restarts and crashes: whatever arrives after a crash
//     has a greater Position than anything before it ever had.
//   - Delete is a hint about space: a crash, or a rebuild of the index, may bring
//     a deleted chunk back.
//
// Disk order: a chunk's bytes are flushed before the index names them on disk.
// At Open whatever the packs hold beyond the index is verified and added; if
// the index is gone or damaged it is made anew from the packs alone. An index that cannot be written any more while
// the store is open (Store.Broken) has nobody wait: what is put lies in the packs, and is remembered until the next Open.
//
// Lock order: Store.appendMu, then Store.commitMu, then Store.mu; writeback.mu and packs.mu last.
package casstore
