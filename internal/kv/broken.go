package kv

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/writefs"
)

// Pebble ends the process when it cannot write its log or its manifest, be it for a full disk, and when it cannot
// write a table it tries again without a pause. So it is not told: whatever write fails breaks the state, and the goroutine
// that wanted it waits for ever. Nothing is written after a failure; reads go on; who waits for an update or a flush gets the
// error; and the owner is told, who ends in order. It is the same when tables cannot be merged. The files stay open and locked while the process lives: another one may open the
// state again. A scratch state, which nobody opens again, is closed all the same: see scratchFS.

// Broken is closed when the state takes no more updates: every Update and Sync from then on fails with why.
func (p *Pebble) Broken() <-chan struct{} { return p.broken.Done() }

// Err returns why the state takes no more updates, or nil.
func (p *Pebble) Err() error { return p.broken.Get() }

// why is what an update gets that is not taken any more.
func why(err error) error { return fmt.Errorf("write to the state: %w", err) }

// failed breaks the state for an error of its disk, and returns only if there is none, while it is being opened, or of a scratch state.
func (p *Pebble) failed(err error) error {
	if !p.opened.Load() || !writefs.Failed(err) {
		return err
	}
	_ = p.broken.Set(why(err))
	if !p.scratch {
		p.park(err)
	}
	return err
}

// tryPause is how long pebble waits before it tries again what it does by itself.
const tryPause = 200 * time.Millisecond

// compacted breaks the state if tables that are damaged, or cannot be read, cannot be merged: pebble would try that for ever, and in the
// end has writers wait for it.
func (p *Pebble) compacted(err error) {
	if writefs.Lasting(err) && !errors.Is(err, pebble.ErrCancelledCompaction) {
		_ = p.broken.Set(why(err))
		if !p.scratch { // who is there already waits no longer
			_ = p.stuck.Set(why(err))
		}
	}
}

// dropped reports whether what is in the state is of no use any more.
func (p *Pebble) dropped() bool { return p.scratch && p.Err() != nil }

// park ends all that waits for the goroutine, and does not return.
func (p *Pebble) park(err error) {
	_ = p.stuck.Set(why(err))
	select {}
}

// watchedLogger passes pebble's messages on, and has it break the state instead of ending the process.
type watchedLogger struct {
	log hclog.Logger
	p   *Pebble
}

var _ pebble.Logger = watchedLogger{}

// Infof implements pebble.Logger. It is of use to who debugs only: pebble tells what logs it finds at each start.
func (l watchedLogger) Infof(format string, args ...any) {
	if l.log.IsDebug() {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (l watchedLogger) Errorf(format string, args ...any) {
	if !l.p.dropped() {
		l.log.Error(fmt.Sprintf(format, args...))
	}
}

// Fatalf implements pebble.Logger. Pebble requires that it does not return.
func (l watchedLogger) Fatalf(format string, args ...any) {
	err := writefs.Fatal(format, args...)
	if _ = l.p.failed(err); l.p.Err() != nil {
		l.p.park(err)
	}
	panic(err) // which writefs.Open recovers
}
