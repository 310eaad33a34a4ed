package volume

import (
	"fmt"

	"github.com/foreverfs/forever/namespace"
)

// foldStep is how many records of the tree one step of folding looks at; the mount waits that long.
const foldStep = 256

// Clock returns the greatest counter of all ops in the tree: about how many
// there have been.
func (v *Volume) Clock() uint64 {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.MaxLamport()
}

// Acknowledge lets this mount say what it has seen for good, and promise what all active
// devices have (namespace.Tree.Acknowledge). active is asked while nothing is delivered, so
// that it knows of every device that anything in the tree knows to take part.
func (v *Volume) Acknowledge(active func() []namespace.Device, keep namespace.Retention) error {
	if v.growable() != nil {
		return nil
	}
	v.treeMu.Lock()
	defer v.treeMu.Unlock()
	// What it claims to have made itself must be in the log.
	if err := v.cutLocked(); err != nil {
		return err
	}
	said, err := v.cfg.Tree.Acknowledge(v.now(), active(), keep)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	if said {
		v.wakeBatcher()
	}
	return nil
}

// Fold folds the tree by one short step, to be repeated until it says that all is
// done. A point behind what was folded before is taken for that.
func (v *Volume) Fold(to namespace.Point) (done bool, err error) {
	v.treeMu.Lock()
	defer v.treeMu.Unlock()
	was, err := v.cfg.Tree.Folded()
	if err != nil {
		return false, err
	}
	if !to.Covers(was) {
		return true, nil
	}
	return v.cfg.Tree.Fold(to, foldStep)
}
