package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Limits of what one fsync of 4 KiB costs the disk, in bytes.
const (
	fsyncNow   = 64 << 10
	fsyncAfter = 256 << 10
)

// amplify measures what fsyncs of one changed block each in a large file write to the
// disk: at once, and with all that follows later.
func (b *bench) amplify(ctx context.Context) error {
	return errors.Join(b.amplifyOn(ctx, native), b.amplifyOn(ctx, ours))
}

func (b *bench) amplifyOn(ctx context.Context, name string) (err error) {
	s, err := b.newSystem(ctx, name, "amplify")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(filepath.Join(b.base, "amplify"))) }()
	p := &place{bench: b, dir: s.dir}
	_ = bigData(ctx, p)
	if _, err := bigWrite(ctx, p); err != nil {
		return err
	}
	_ = randomData(b.scale.Updates)(ctx, p)
	b.quiet(s)
	w := &watch{dir: b.base}
	if err := w.start(s.pid()); err != nil {
		return err
	}
	if err := updateAll(p); err != nil {
		return err
	}
	first, tookFirst, err := w.total()
	if err != nil {
		return err
	}
	b.quiet(s)
	if err := syncDisk(b.base); err != nil {
		return err
	}
	all, tookAll, err := w.total()
	if err != nil {
		return err
	}
	own := w.byProcess(s.pid())
	b.logf("amplify %s: %d fsyncs in %v, %d bytes; %d in all", name, len(p.at), tookFirst, first, all)
	// What the machine writes anyway in so much time does not count.
	idle, err := w.idle(ctx, s.pid(), tookAll)
	if err != nil {
		return err
	}
	n := float64(len(p.at)) * 1024
	share := float64(idle) * float64(tookFirst) / float64(tookAll)
	b.results.amplified(name, (float64(first)-share)/n, float64(all-idle)/n, float64(own)/n)
	return nil
}

func (r *report) amplified(name string, now, after, own float64) {
	at, later := check{Title: "written per fsync of 4 KiB, native", Value: now, Unit: "KiB"}, check{}
	if name == ours {
		at = check{Title: "written per fsync of 4 KiB", Value: now, Limit: fsyncNow >> 10, Unit: "KiB"}
		later = check{Title: "the same with all that follows", Value: after, Limit: fsyncAfter >> 10, Unit: "KiB"}
	}
	r.check(at)
	if name == ours {
		r.check(later)
		r.check(check{Title: "the same, only what the node itself wrote", Value: own, Unit: "KiB"})
	}
}

// updateAll writes each block and makes it durable before the next.
func updateAll(p *place) (err error) {
	f, err := os.OpenFile(p.path("big"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i, off := range p.at {
		if _, err := f.WriteAt(p.buf[i*block:(i+1)*block], off); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until a system has nothing left to write.
func (b *bench) quiet(s *system) {
	if pid := s.pid(); pid != 0 {
		quiet(pid, time.Duration(b.scale.Patience)*20*time.Second)
	}
}

// watch counts what is written to the disk below a directory.
type watch struct {
	dir   string
	begin time.Time
	disk  int64
	own   int64
}

func (w *watch) start(pid int) (err error) {
	if err := syncDisk(w.dir); err != nil {
		return err
	}
	w.begin, w.own = time.Now(), procField(pid, "io", "write_bytes")
	w.disk, err = written(w.dir)
	return err
}

// total returns what was written since start, and in how long.
func (w *watch) total() (int64, time.Duration, error) {
	n, err := written(w.dir)
	return n - w.disk, time.Since(w.begin), err
}

// byProcess returns what a process wrote since start.
func (w *watch) byProcess(pid int) int64 { return procField(pid, "io", "write_bytes") - w.own }

// idle returns what is written while nothing is asked for.
func (w *watch) idle(ctx context.Context, pid int, length time.Duration) (int64, error) {
	if err := w.start(pid); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(length):
	}
	if err := syncDisk(w.dir); err != nil {
		return 0, err
	}
	n, _, err := w.total()
	return n, err
}
