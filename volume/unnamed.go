package volume

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/foreverfs/forever/namespace"
)

// CreateUnnamed makes a regular file without a name, for files in a directory, and opens it: O_TMPFILE of
// open(2). Link may give it a name; else it is gone when its last handle and the kernel's last reference are.
//
// To other devices it is a file that was made and removed, in one batch.
func (v *Volume) CreateUnnamed(ctx context.Context, c Caller, parent uint64, mode uint32, flags int) (Attr, *Handle, error) {
	return v.createOpen(ctx, c, parent, "", mode, flags)
}

// passingPrefix begins a passingName.
const passingPrefix = ".unnamed-"

// passingName is a name that nobody has.
func passingName() string { return passingPrefix + rand.Text() }

// passed reports whether a name was one that a file without a name had in passing: it lost it in the moment in which it got it.
func passed(e namespace.PastEntry) bool {
	return strings.HasPrefix(e.Name, passingPrefix) && e.To == e.From
}

// settleAll brings the content of a file into the tree, whether it has
// a name or not: so that whoever finds the name it is about to get finds that.
func (v *Volume) settleAll(ctx context.Context, in *inode) error {
	if err := in.fold.LockFor(ctx); err != nil {
		return err
	}
	defer in.fold.Unlock()
	if err := v.makeCandidate(ctx, in); err != nil {
		return err
	}
	return v.commitReady(in)
}
