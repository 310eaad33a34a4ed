package main

import "github.com/foreverfs/forever/internal/fail"

// exitCodes gives every kind of failure its exit code. The codes are promised in
// docs/commands.md: they are never reused for something else.
var exitCodes = map[fail.Kind]int{
	fail.Internal:    1,
	fail.Usage:       2,
	fail.NoVolume:    3,
	fail.NotRunning:  4,
	fail.InUse:       5,
	fail.Format:      6,
	fail.Mountpoint:  7,
	fail.FUSE:        8,
	fail.Invite:      9,
	fail.Peer:        10,
	fail.Timeout:     11,
	fail.Path:        12,
	fail.NoSpace:     13,
	fail.Key:         14,
	fail.Unavailable: 15,
	fail.Exists:      16,
	fail.Address:     17,
	fail.ReadOnly:    18,
	fail.Keyless:     19,
	fail.Refused:     20,
	fail.Damaged:     21,
	fail.Interrupted: 130,
}

func exitCode(err error) int {
	if code, ok := exitCodes[fail.KindOf(err)]; ok {
		return code
	}
	return exitCodes[fail.Internal]
}
