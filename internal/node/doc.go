// Package node makes one running member (or keyless replica) out of the other
// packages: it owns the data directory, the keys, the state, the chunk store,
// the connection to other devices, the volume and the mount, starts them in
// order and ends them in the reverse one. Commands talk to a running node over
// HTTP on the Unix socket in its data directory; Client is their side of it.
//
// # Data directory
//
// docs/format/datadir.md describes every file in it. The lock is taken before
// anything else is read, so that two processes never share a store.
//
// # Lifecycle
//
// Create or Join prepares a data directory and leaves it closed. Open takes it,
// Start serves other devices and the socket, Mount adds a mount point, Close
// ends everything: new requests are refused, what is dirty is flushed, the
// mount goes, the connections, the stores, the lock.
package node
