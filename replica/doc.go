// Package replica keeps who holds what: the control log that says which devices
// take part, the op logs of all incarnations, and the exchange of both and of
// chunks with other devices. It moves sealed bytes and never sees a key of content,
// so a device without keys runs the same code as a member.
//
// There is one connection per pair of devices, and what is exchanged over it has streams of
// its own: logs (control entries, envelopes, acknowledgements, addresses) in both directions,
// chunks pushed in order of arrival, chunks fetched by name, leases and locks between mounts,
// the comparison of two stores, and connections of two others that go through this device or come
// to it through another. Everything can be repeated without harm, and continues after
// a break where both sides remember to have been. The bytes are described in
// docs/format/control-log.md, op-log.md and peer-protocol.md.
//
// # Order of writing
//
// An envelope is in the state (kv.DB.Update) before it is delivered or sent on;
// it is acknowledged to others after kv.DB.Sync. A chunk is in the store before the
// offer that named it is acknowledged, and the acknowledgement follows the store's
// Sync. A crash may therefore lose only what nobody was told to be safe.
//
// # Locks
//
// session.comparing, logMu, mu, in this order. mu is never held over I/O; logMu is held over the state's
// Update, because the chain in memory and the one in the state must grow in the same order; session.comparing is
// held for a whole comparison and tally.mu while the store is read, without any other lock.
//
// The others are not held while another is taken, but for two: incoming.mu before fetcher.mu, and turns.mu before
// fetchClient.mu. Those of leases, locks, pusher and spliced are alone; what a machine of leases or locks wants is done
// without its lock.
package replica

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative replica/replicapb/replica.proto
