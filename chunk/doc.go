// Package chunk holds what everybody needs to know about chunks: the ID that
// names one, the size limits, and the block tree by which the blocks of a file
// become one version of its content.
//
// A file's content is cut into blocks of one size, a power of two recorded per
// version. Each block is sealed into a chunk of its own, elsewhere; here a block
// is the ID of that chunk, and a block of zeros may be the zero ID, a hole that
// costs nothing. The IDs are the leaves of a tree of nodes with [Fanout] children,
// and nodes are chunks too. So a version is its size and one root ID, a change
// costs the changed blocks and the nodes on the way to them, and two versions
// share every subtree in which they are equal.
//
// A tree is canonical: its height follows from the size, a subtree without blocks
// is a hole, and a node's encoding is unique. The same IDs in the same places
// give the same nodes, however they were put there. The encoding is described in
// docs/format/block-tree.md.
//
// Everything here is pure; nodes are read and written through [NodeIO]. What is
// read may come from anybody: a malformed node or an impossible version is
// refused with [ErrMalformed].
package chunk
