// Package volume gives one replicated tree the semantics of a file system:
// inodes and handles, data not yet sealed, the journal of what was fsynced,
// read-ahead, and the hand-over of finished work to the log. It joins the
// tree (namespace), the sealing and the chunk store behind small interfaces,
// and knows neither FUSE nor the network.
//
// # Words
//
// What is written to a file is dirty until it is sealed: its blocks are chunks in the store, which no version names yet. A
// candidate is a version of the whole file made of such chunks; it is entered when its content op is in the tree, and
// published when a batch with that op is in the log, for other devices to take. Journalled is what a record in the state
// holds, to be laid over the file again after a crash; kept is a file whose content is only there, because it cannot be
// sealed now. A file is closed when a close has reported its content as done and that is not sealed yet: who must not
// overtake it seals and enters it first.
//
// # Write order
//
// A content op is written to the state's log, or handed to other devices, only when every chunk it
// names is durable: chunks before op. In the memory of the tree it may be earlier. Journal records and ops
// share one write-ahead log, so what a power cut leaves is a prefix of what was done, and no op in it lacks a chunk.
//
//   - fsync of at most JournalMax not yet sealed, or of more that is scattered over many blocks: journal records, one flush.
//   - fsync of more: the blocks are sealed and stored, the content op enters the tree, then one flush of
//     the store and one of the state.
//   - close: the blocks are sealed and stored; the content op follows within tens of milliseconds. What is journalled
//     already stays so and is sealed as soon, while no other mount is connected up to foldDelay later; what cannot be sealed
//     now is journalled, and the close succeeds. Only a full store, and what can be put nowhere, are errors. It waits for no
//     flush: one is shared by all files closed meanwhile.
//   - rename and link of a file bring its closed content into the tree first, so that a
//     name never comes back with a content that was never there.
//   - everything else reaches the disk within FlushInterval.
//
// # Locks
//
// Order: Volume.queueMu, inode.fold, inode.mu, Volume.treeMu, Volume.mu. The notifier is called without any.
package volume
