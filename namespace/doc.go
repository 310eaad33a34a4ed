// Package namespace is the replicated tree: directories, files, symlinks, hard
// links, devices, attributes and extended attributes, as a function of the set
// of ops that were applied. Same set, same tree, whatever the order of arrival.
//
// It is pure logic over an ordered key-value state (internal/kv): no clock, no
// goroutine, no network. Content is named, never held, but for tiny files.
//
// A local operation is checked as POSIX would, turned into an op that names what
// it supersedes, applied, and kept as pending, all in one update of the state.
// Cut encodes the pending ops as a batch for the log, Committed forgets them,
// Merge applies a batch of somebody else. Local and foreign ops take effect
// through the same code; docs/merge.md has the rules, docs/format/op.md the
// batches, docs/format/tree-state.md the keys and records.
//
// One writer at a time: the caller serialises every method that changes the
// tree. Readers may run beside each other, not beside a writer.
package namespace
