package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of memory in MiB, and of the time until a mount can be used, in seconds.
const (
	idleLimit    = 80
	millionLimit = 300
	usableLimit  = 1
)

// idle measures the memory of a node that has nothing to do.
func (b *bench) idle(ctx context.Context) (err error) {
	s, err := b.newSystem(ctx, ours, "idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(filepath.Join(b.base, "idle"))) }()
	b.quiet(s)
	b.results.check(check{Title: "memory of an idle node", Value: float64(rss(s.pid())) / mib, Limit: idleLimit, Unit: "MiB"})
	return nil
}

// perDirectory is how many of a million files lie together.
const perDirectory = 1000

// million measures a volume with very many files: memory, and how soon it is there again.
func (b *bench) million(ctx context.Context) (err error) {
	s, err := b.newSystem(ctx, ours, "million")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(filepath.Join(b.base, "million"))) }()
	if err := b.makeMillion(ctx, s.dir); err != nil {
		return err
	}
	b.quiet(s)
	files := fmt.Sprintf("%d files", b.scale.Million)
	b.results.check(check{Title: "memory after creating " + files, Value: float64(rss(s.pid())) / mib, Limit: millionLimit, Unit: "MiB"})
	for _, kept := range []bool{true, false} {
		title := "until " + files + " can be used after a restart"
		if !kept {
			title += ", nothing cached"
		}
		took, err := b.restarts(s, kept)
		if err != nil {
			return err
		}
		b.results.check(check{Title: title, Value: took, Limit: usableLimit, Unit: "s"})
	}
	b.quiet(s)
	b.results.check(check{Title: "memory with " + files + " after a restart", Value: float64(rss(s.pid())) / mib, Limit: millionLimit, Unit: "MiB"})
	return nil
}

func (b *bench) makeMillion(ctx context.Context, dir string) error {
	begin := time.Now()
	for i := range b.scale.Million {
		in := fmt.Sprintf("%s/d%d", dir, i/perDirectory)
		if i%perDirectory == 0 {
			if err := errors.Join(ctx.Err(), os.Mkdir(in, 0o755)); err != nil {
				return err
			}
		}
		if err := createEmpty(nil, fmt.Sprintf("%s/f%d", in, i), i); err != nil {
			return err
		}
	}
	b.logf("%d files created in %v", b.scale.Million, time.Since(begin).Round(time.Second))
	return nil
}

// restarts ends a node and starts it again, once a round, and returns the median
// of the seconds from starting it until a file in it can be looked at.
func (b *bench) restarts(s *system, cached bool) (float64, error) {
	i := b.scale.Million / 2
	file := fmt.Sprintf("%s/d%d/f%d", s.dir, i/perDirectory, i)
	var took []float64
	for range b.rounds {
		if err := s.srv.stop(); err != nil {
			return 0, err
		}
		if !cached {
			if err := dropCaches(b.base, nothing); err != nil {
				return 0, err
			}
		}
		begin := time.Now()
		if err := s.srv.launch(); err != nil {
			return 0, err
		}
		if err := s.srv.awaitFile(file); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin).Seconds())
	}
	return median(took), nil
}

// awaitFile waits until a file on the mount is there.
func (s *server) awaitFile(path string) error {
	var st unix.Stat_t
	for deadline := time.Now().Add(startPatience); ; time.Sleep(time.Millisecond) {
		err := unix.Lstat(path, &st)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the node ended: %s", s.log.tail())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}
