package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// place is where a row does its work on one system.
type place struct {
	*bench
	dir string // empty at the beginning of a round
	at  []int64
	buf []byte // what is to be written

	drops int // what bench.drops was when the kernel last had all that is in dir
}

func (p *place) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// warm reads all that is in the directory, if the kernel was made to forget anything since it last had it. It
// forgets for all systems at once: the one that is measured last would have an advantage in the next row.
func (p *place) warm() error {
	if p.drops == p.bench.drops {
		return nil
	}
	p.drops = p.bench.drops
	return filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
}

// row is one measurement. run is timed and says how many units it did.
type row struct {
	key    string
	title  string
	unit   string // a rate, or "s": then the time is shown
	target float64
	cold   coldness
	// reads says that later rows do not need what this one does.
	reads  bool
	before func(context.Context, *place) error
	run    func(context.Context, *place) (float64, error)
}

// group is rows that follow each other on the same files.
type group struct {
	name    string
	prepare func(context.Context, *place) error
	once    bool // the files stay for all rounds
	rows    []row
}

func groups(sc scale) []group {
	return []group{bigGroup(sc), emptyGroup(sc), smallGroup(sc), fsyncGroup(sc), treeGroup(), sqliteGroup(sc), listGroup(sc)}
}

func keys() (all []string) {
	for _, g := range groups(fullScale()) {
		for _, r := range g.rows {
			all = append(all, r.key)
		}
	}
	return all
}

// sample is one measurement of one row on one system. Without Units it failed.
type sample struct {
	Units   float64 `json:"units"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // of the serving process, until it has nothing left to do
	PeakRSS int64   `json:"peak_rss"`    // of the same, in bytes
	// Layers are the seconds of CPU spent in each layer of the node, if they were asked for.
	Layers map[string]float64 `json:"layers,omitempty"`
}

func (s sample) rate() float64 {
	if s.Seconds <= 0 {
		return 0
	}
	return s.Units / s.Seconds
}

// rows measures all rows that are asked for.
func (b *bench) rows(ctx context.Context) error {
	var errs []error
	for _, g := range groups(b.scale) {
		g.rows = b.wanted(g.rows)
		if len(g.rows) == 0 {
			continue
		}
		for _, r := range g.rows {
			if b.options.rows.MatchString(r.key) {
				b.results.addRow(r)
			}
		}
		if err := b.group(ctx, g); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// wanted leaves out what neither is asked for nor needed by what is.
func (b *bench) wanted(all []row) (some []row) {
	last := -1
	for i, r := range all {
		if b.options.rows.MatchString(r.key) {
			last = i
		}
	}
	for _, r := range all[:last+1] {
		if !r.reads || b.options.rows.MatchString(r.key) {
			some = append(some, r)
		}
	}
	return some
}

// group measures a group on fresh systems.
func (b *bench) group(ctx context.Context, g group) (err error) {
	var systems []*system
	defer func() {
		for _, s := range systems {
			err = errors.Join(err, s.stop())
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(b.base, g.name)))
	}()
	for _, name := range b.systems {
		s, err := b.newSystem(ctx, name, g.name)
		if s != nil {
			systems = append(systems, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	places := map[*system]*place{}
	for round := range b.rounds {
		if err := b.round(ctx, g, round, systems, places); err != nil {
			return err
		}
	}
	return nil
}

// round measures each row on each system once.
func (b *bench) round(ctx context.Context, g group, round int, systems []*system, places map[*system]*place) error {
	for _, s := range systems {
		if g.once && places[s] != nil {
			continue
		}
		p := &place{bench: b, dir: filepath.Join(s.dir, fmt.Sprintf("round%d", round+1)), drops: b.drops}
		places[s] = p
		if err := os.Mkdir(p.dir, 0o755); err != nil {
			return err
		}
		if g.prepare != nil {
			if err := g.prepare(ctx, p); err != nil {
				return fmt.Errorf("prepare %s: %w", s.name, err)
			}
		}
	}
	for _, r := range g.rows {
		for _, s := range systems {
			m, err := b.measure(ctx, r, s, places[s])
			if ctx.Err() != nil {
				return context.Cause(ctx) // which signal
			}
			if err != nil {
				return fmt.Errorf("%s on %s: %w", r.key, s.name, err)
			}
			b.results.add(r.key, s.name, m)
			b.logf("round %d  %-14s %-10s %8.3f s %12s %s", round+1, r.key, s.name, m.Seconds, figure(m.rate()), r.unit)
		}
	}
	for _, p := range places {
		if !g.once {
			if err := os.RemoveAll(p.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure takes one sample.
func (b *bench) measure(ctx context.Context, r row, s *system, p *place) (m sample, err error) {
	if r.before != nil {
		if err := r.before(ctx, p); err != nil {
			return m, fmt.Errorf("prepare: %w", err)
		}
	}
	if r.cold == warm {
		if err := p.warm(); err != nil {
			return m, fmt.Errorf("read what is there: %w", err)
		}
	} else {
		b.drops++
	}
	patience := time.Duration(b.scale.Patience) * time.Second
	if pid := s.pid(); pid != 0 {
		settle(pid, patience)
	}
	if err := s.forget(b.base, r.cold); err != nil {
		return m, fmt.Errorf("forget caches: %w", err)
	}
	pid := s.pid() // which may be another now
	if pid != 0 {
		settle(pid, patience)
		resetPeak(pid)
		m.CPU = -cpuSeconds(pid)
	}
	var prof *profiler
	if pid != 0 && s.srv.profiles != "" {
		prof = startProfiler(ctx, s.srv.profiles)
	}
	begin := time.Now()
	m.Units, err = r.run(ctx, p)
	m.Seconds = time.Since(begin).Seconds()
	if pid != 0 {
		settle(pid, patience)
		m.CPU += cpuSeconds(pid)
		m.PeakRSS = peakRSS(pid)
	}
	if prof != nil {
		var perr error
		m.Layers, perr = prof.end()
		err = errors.Join(err, perr)
	}
	return m, err
}
