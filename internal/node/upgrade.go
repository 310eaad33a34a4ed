package node

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// errUnpublished says that an upgrade would lose something.
var errUnpublished = errors.New("it was not stopped properly and has changes that are in no log yet")

// upgrade brings an older data directory to what this program reads. Version 2
// has other records of the tree; the tree is made anew from the logs, which have it all. A
// crash in between repeats the deletion: the version is written last.
func (n *Node) upgrade() error {
	if n.format.Version == FormatVersion {
		return nil
	}
	if n.format.Role == RoleMember {
		if err := forgetTree(n.state); err != nil {
			return fmt.Errorf("upgrade the data directory from version %d: %w", n.format.Version, err)
		}
		n.log.Info("upgraded; the tree is made anew from the logs", "from", n.format.Version, "to", FormatVersion)
	}
	n.format.Version = FormatVersion
	return writeFormat(n.dir.path, n.format)
}

// forgetTree deletes every record of the tree.
func forgetTree(state kv.DB) error {
	pending := false
	lo := []byte("tp")
	if err := state.Scan(lo, kv.PrefixEnd(lo), func(_, _ []byte) bool { pending = true; return false }); err != nil {
		return err
	}
	if pending {
		return fmt.Errorf("%w: start the program that wrote it once more, stop it, and try again", errUnpublished)
	}
	if err := kv.Clear(state, 't'); err != nil {
		return err
	}
	return state.Sync()
}
