// Package volume gives one replicated tree the semantics of a file system:
// inodes and handles, data not yet sealed, the journal of what was fsynced,
// read-ahead, and the hand-over of finished work to the log. It joins the
// tree (namespace), the sealing and the chunk store behind small interfaces,
// and knows neither FUSE nor the network.
//
// # Write order
//
// A content op is written to the state's log, or handed to other devices, only when every chunk it
// names is durable: chunks before op. In the memory of the tree it may be earlier. Journal records and ops
// share one write-ahead log, so what a power cut leaves is a prefix of what was done, and no op in it lacks a chunk.
//
//   - fsync of at most a few hundred KiB not yet sealed: one journal record, one flush.
//   - fsync of more: the blocks are sealed and stored, the content op enters the tree, then one flush of
//     the store and one of the state.
//   - close: the blocks are sealed and stored, and errors reported; the content op
//     follows within tens of milliseconds. It waits for no flush: one is shared by all files closed meanwhile.
//   - rename and link of a file bring its closed content into the tree first, so that a
//     name never comes back with a content that was never there.
//   - everything else reaches the disk within FlushInterval.
//
// # Locks
//
// Order: Volume.queueMu, inode.fold, inode.mu, Volume.treeMu, Volume.mu. The notifier is called without any.
package volume
