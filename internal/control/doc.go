// Package control is the talk between commands and a running node: HTTP and JSON
// over the Unix socket in the node's data directory, described in
// docs/format/control.md. It holds the message types, the server's handler over
// two small interfaces, and the client. It knows nothing of keys, trees or
// devices; what a failure means travels as a fail.Kind.
package control
