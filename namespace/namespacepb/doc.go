// Package namespacepb is the wire form of ops and batches; docs/format/op.md
// says what it means.
package namespacepb

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative namespace/namespacepb/op.proto
