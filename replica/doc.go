// Package replica keeps who holds what: the control log that says which devices
// take part, the op logs of all incarnations, and the exchange of both and of
// chunks with other devices. It moves sealed bytes and never sees a key of content,
// so a device without keys runs the same code as a member.
//
// Three things are exchanged over one connection per pair of devices, each on a
// stream of its own: logs (control entries, envelopes, acknowledgements,
// addresses) in both directions, chunks pushed in order of arrival, and chunks
// fetched by name. Everything can be repeated without harm, and continues after
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
// logMu before mu; incoming.mu and the locks of a session are taken last and
// alone. mu is never held over I/O; logMu is held over the state's Update, because
// the chain in memory and the one in the state must grow in the same order.
package replica

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative replica/replicapb/replica.proto
