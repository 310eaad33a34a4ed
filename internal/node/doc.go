// Package node makes one running member (or keyless replica) out of the other
// packages: it owns the data directory, the keys, the state, the chunk store,
// the connection to other devices, the volume and the mount, starts them in
// order and ends them in the reverse one. Commands talk to a running node over
// HTTP on the Unix socket in its data directory; internal/control is their side of it.
//
// # Data directory
//
// docs/format/datadir.md describes every file in it. The lock is taken before
// anything else is read, so that two processes never share a store.
//
// # Lifecycle
//
// Create, Join or Recover prepares a data directory and leaves it closed. Open takes it and
// serves other devices and the socket, Mount adds a mount point. Done says when the node should end, and why: its
// mount was taken away, or a part of it has failed. Close ends everything: new requests are refused, the mount goes, what
// is dirty is flushed, connected devices get a moment to take it, and then the connections go, the stores, the lock.
//
// A Host is the node of a data directory, and on a keyless replica also those of the further volumes inside it, which come
// and go while it runs: one process, one port, and one Done and Close for all.
package node
