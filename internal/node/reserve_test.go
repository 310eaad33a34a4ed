package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/foreverfs/forever/internal/kv"
)

// TestReserveIsSpent: a write of the state that finds no room takes that of the reserve, be it the disk that is full or its user's quota.
func TestReserveIsSpent(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		t.Run(full.Error(), func(t *testing.T) {
			d := &dataDir{path: t.TempDir()}
			disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind != errorfs.OpFileWrite || filepath.Ext(op.Path) != ".log" {
					return nil
				}
				if _, err := os.Stat(d.join(reserveName)); err != nil {
					return nil
				}
				return full
			}))
			state, err := kv.OpenPebble(kv.PebbleConfig{Dir: d.join(stateName), FS: stateDisk(d, disk)})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d.join(reserveName), []byte("held"), 0o600); err != nil {
				t.Fatal(err)
			}
			err = state.Update(func(tx kv.Tx) error { return tx.Put([]byte("a"), nil) })
			if err := errors.Join(err, state.Sync(), state.Close()); err != nil {
				t.Errorf("the update that finds no room: %v", err)
			}
			if _, err := os.Stat(d.join(reserveName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the reserve: %v", err)
			}
		})
	}
}

// TestStartOnFullDisk: a start after a kill -9, on a disk that another program has filled since, has the room that is held for it.
func TestStartOnFullDisk(t *testing.T) {
	n, disk := smallNode(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	// As a killed node leaves it.
	if err := os.WriteFile(n.dir.join(reserveName), make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := mustOpen(t, n.cfg).Close(); err != nil {
		t.Error(err)
	}
}
