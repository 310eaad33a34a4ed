package lease

import "time"

// user reads and writes as long as there is something to do.
func (m *mount) user() {
	w := m.w
	if w.quiet {
		return
	}
	again := func() { w.in(w.after(30*time.Millisecond, 400*time.Millisecond, 0.1), m.user) }
	if m.machine == nil {
		again()
		return
	}
	d := m.pick()
	switch k := w.rng.IntN(20); {
	case k < 12:
		m.read(d)
	case k < 18 || len(w.dirs) > 20:
		m.do(func() { m.write(d) })
	default:
		m.do(func() { m.mkdir(d) })
	}
	again()
}

// pick chooses a directory that is there for m, rather a new one.
func (m *mount) pick() *simDir {
	for {
		n := len(m.w.dirs)
		d := m.w.dirs[max(m.w.rng.IntN(n), m.w.rng.IntN(n))]
		if d.made == nil || d.Maker == m.log || d.made.seq > 0 && m.tree[d.Maker] >= d.made.seq {
			return d
		}
	}
}

// begin waits for the machine, for a bounded time unless somebody was frozen meanwhile.
func (m *mount) begin(bound time.Duration, e func(Op) Event, then func()) {
	m.lastOp++
	id, since := m.lastOp, m.now()
	m.ops[id] = &op{since, func() {
		took := m.now() - since
		if took > bound+50*time.Millisecond && m.w.Freezes == 0 {
			m.w.fail("%d waited for %v: %w", m.i, took, errBound)
		}
		then()
	}}
	m.step(e(id))
}

// bond is for how long a mount has counted another as connected, whatever the terms were.
type bond struct {
	epoch   int           // counts its ends
	term    time.Duration // until when the last term would have lasted that a lost link ended
	flushed bool          // the kernel was, since then
}

func (m *mount) bond(id Peer) *bond {
	if m.bonds[int(id[0])] == nil {
		m.bonds[int(id[0])] = &bond{}
	}
	return m.bonds[int(id[0])]
}

// parts notes that the link to a peer ends, or that another takes its place.
func (m *mount) parts(id Peer) {
	x, b := m.machine.peer(id), m.bond(id)
	if x.hold.state == holdOn {
		b.term, b.flushed = x.hold.until, false
	}
}

// noteBonds notes what has ended.
func (m *mount) noteBonds() {
	for _, o := range m.w.mounts {
		if _, ok := m.believer(o); !ok {
			m.bond(o.peer()).epoch++
		}
	}
}

// believer reports whether m counts o as connected now, and since which bond.
func (m *mount) believer(o *mount) (epoch int, ok bool) {
	if m.machine == nil || o == m {
		return 0, false
	}
	p, b := m.machine.peer(o.peer()), m.bond(o.peer())
	on := p.hold.state == holdOn && m.now() < p.hold.until
	return b.epoch, on || m.now() < p.awaited && (b.flushed || m.now() < b.term)
}

// expected is what a read that begins now must show.
type expected struct {
	o     *mount
	life  int // of o: a crash may take what was done
	epoch int
	term  uint64
	list  []*change
}

func (m *mount) expect(d *simDir) (out []expected) {
	for _, o := range m.w.mounts {
		epoch, ok := m.believer(o)
		if !ok {
			continue
		}
		x := expected{o: o, life: o.life, epoch: epoch, term: m.machine.peer(o.peer()).hold.term}
		for _, c := range d.done[o.i] {
			x.list = append(x.list, c)
		}
		out = append(out, x)
	}
	return out
}

// check compares what a read showed.
func (m *mount) check(d *simDir, want []expected, got vector, how string) {
	m.w.Reads++
	for _, x := range want {
		if epoch, ok := m.believer(x.o); !ok || epoch != x.epoch || x.o.life != x.life {
			continue
		}
		if m.machine.peer(x.o.peer()).hold.term != x.term {
			m.w.Across++
		}
		for _, c := range x.list {
			m.w.Checked++
			if c.seq == 0 || got[c.log] < c.seq {
				m.w.fail("%d, connected with %d in bond %d, read directory %d (%s) and did not see batch %d of %s, but %v",
					m.i, x.o.i, x.epoch, d.ID[0], how, c.seq, logName(c.log), got)
			}
		}
	}
}

// read looks into a directory: in the kernel if it remembers, else in the tree.
func (m *mount) read(d *simDir) {
	want := m.expect(d)
	if got, ok := m.kernel[d]; ok {
		m.w.Hits++
		m.check(d, want, got, "kernel")
		return
	}
	m.do(func() {
		changes := m.changes
		dirs := []Dir{d.Dir}
		answer := func() {
			got := vector{}
			for log, n := range m.tree {
				got[log] = n
			}
			keep := m.machine.Covered(dirs)
			// As a name is shown together with the attributes of what it names.
			beside := m.pick()
			keepBeside := m.machine.Covered([]Dir{beside.Dir})
			m.later(m.w.after(time.Millisecond, 40*time.Millisecond, 0.05), func() {
				if keep && changes == m.changes {
					m.kernel[d] = got
				}
				if keepBeside && changes == m.changes {
					m.kernel[beside] = got
				}
				m.check(d, want, got, "tree")
			})
		}
		if m.machine.Current(m.now(), dirs) {
			answer()
			return
		}
		m.begin(m.machine.cfg.Limit, func(id Op) Event { return Observe{id, dirs} }, answer)
	})
}

// write changes a directory.
func (m *mount) write(d *simDir) {
	c := &change{log: m.log, dir: d}
	m.pending = append(m.pending, c)
	m.later(m.w.after(5*time.Millisecond, 60*time.Millisecond, 0.1), m.cut)
	m.later(m.w.after(time.Millisecond, 20*time.Millisecond, 0.05), func() { m.finish(c, d) })
}

// mkdir makes a directory in another.
func (m *mount) mkdir(parent *simDir) {
	m.w.lastAt++
	c := &change{log: m.log, dir: parent}
	d := &simDir{done: map[int]map[Log]*change{}, made: c}
	d.ID[0], d.Maker, d.At = byte(len(m.w.dirs)), m.log, m.w.lastAt
	m.w.dirs = append(m.w.dirs, d)
	m.pending = append(m.pending, c)
	m.later(m.w.after(5*time.Millisecond, 60*time.Millisecond, 0.1), m.cut)
	m.later(m.w.after(time.Millisecond, 20*time.Millisecond, 0.05), func() { m.finish(c, parent) })
}

// finish waits for those that watch and reports a change as done.
func (m *mount) finish(c *change, d *simDir) {
	m.w.Writes++
	dirs := []Dir{d.Dir}
	if !m.machine.Watched(m.now(), dirs) {
		m.w.Free++
		m.reported(c, d)
		return
	}
	m.cut()
	m.w.Waited++
	bound := m.machine.cfg.Limit + m.machine.cfg.Patience
	m.begin(bound, func(id Op) Event { return Write{id, c.seq, dirs} }, func() { m.reported(c, d) })
}

// reported notes that a change is done. Whoever believes to be connected and to
// know the directory must know it.
func (m *mount) reported(c *change, d *simDir) {
	if d.done[m.i] == nil {
		d.done[m.i] = map[Log]*change{}
	}
	if last := d.done[m.i][m.log]; last == nil || last.seq != 0 && (c.seq == 0 || c.seq > last.seq) {
		d.done[m.i][m.log] = c
	}
	for _, o := range m.w.mounts {
		if o == m || o.machine == nil {
			continue
		}
		if _, ok := o.believer(m); !ok || c.seq > 0 && o.told[m.log] >= c.seq {
			continue
		}
		_, remembers := o.kernel[d]
		if remembers || o.machine.dirs[d.ID] != nil && o.machine.current(o.machine.peer(m.peer()), &d.Dir) {
			m.w.fail("%d reported batch %d in directory %d as done, which %d believes to know without it", m.i, c.seq, d.ID[0], o.i)
		}
	}
	for _, p := range m.machine.peers {
		if p.grant.revoked {
			m.w.Slow++
		}
	}
}
