// Package fail is the one shape in which a failure reaches a person: a line that
// says what happened and what to do next, with a kind that the control socket
// carries and that the command turns into its exit code.
package fail

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is the class of a failure. Its text is what the control socket sends,
// and every kind has one exit code; both are stable.
type Kind string

// The kinds of failure.
const (
	Internal    Kind = "internal"    // anything without a class of its own
	Usage       Kind = "usage"       // the command line makes no sense
	NoVolume    Kind = "no-volume"   // the data directory holds no volume yet
	NotRunning  Kind = "not-running" // no node runs on the data directory
	InUse       Kind = "in-use"      // another process has the data directory
	Format      Kind = "format"      // the data directory is newer, foreign or damaged
	Mountpoint  Kind = "mount-point" // missing, no directory, busy or not empty
	FUSE        Kind = "fuse"        // this machine cannot mount
	Invite      Kind = "invite"      // garbled, expired, used, or not for this
	Peer        Kind = "peer"        // no device answers there as it should
	Timeout     Kind = "timeout"     // the stated time is over
	Path        Kind = "path"        // no such file, or not of the right kind
	NoSpace     Kind = "no-space"    // the disk is full
	Key         Kind = "key"         // passphrase missing or wrong, key file damaged
	Unavailable Kind = "unavailable" // nobody reachable holds the content
	Exists      Kind = "exists"      // the data directory already holds a volume
	Address     Kind = "address"     // cannot listen there
	ReadOnly    Kind = "read-only"   // the node was started with --read-only
	Keyless     Kind = "keyless"     // a keyless replica cannot do this
	Damaged     Kind = "damaged"     // the disk has damaged something that nobody could mend
	Refused     Kind = "refused"     // the other devices do not know this one
	Interrupted Kind = "interrupted" // a signal ended the command
)

// Error is a failure told to a person: one line saying what happened, and what
// to do next where that is known.
type Error struct {
	Kind Kind
	// Op says what failed, with its object.
	Op string
	// Next says what to do about it; may be empty.
	Next string
	// Err is the cause; may be nil.
	Err error
}

// Error returns the whole line, without a newline.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Next != "" {
		fmt.Fprintf(&b, "; %s", e.Next)
	}
	return oneLine(b.String())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first Error in err's chain, or Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// OneLine returns the first Error in err's chain as it is told to a person, or
// err itself on one line.
func OneLine(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Error()
	}
	return oneLine(err.Error())
}

// oneLine keeps a message that came from elsewhere on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
