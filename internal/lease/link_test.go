package lease

import "time"

// link is what connects two mounts: in each direction a stream of messages and
// one of logs. Each keeps its order; they do not wait for each other.
type link struct {
	w      *world
	ends   [2]int
	up     bool
	silent bool // what is sent waits
	number int  // of the connection; what belongs to another is lost
	last   [2][2]time.Duration
	inbox  [2][]func() // by side: arrived, not taken yet
}

const (
	streamLease = iota
	streamLog
)

func (w *world) link(i, j int) *link {
	key := [2]int{min(i, j), max(i, j)}
	l := w.links[key]
	if l == nil {
		l = &link{w: w, ends: key}
		w.links[key] = l
	}
	return l
}

// connect makes a new connection; both ends learn of it at different times.
func (w *world) connect(l *link) {
	if w.mounts[l.ends[0]].machine == nil || w.mounts[l.ends[1]].machine == nil {
		return
	}
	l.number++
	l.up = true
	l.last, l.inbox = [2][2]time.Duration{}, [2][]func(){}
	number := l.number
	for side := range 2 {
		w.in(w.after(5*time.Millisecond, 300*time.Millisecond, 0.1), func() { l.tell(side, number) })
	}
}

// tell has one end know of its new connection.
func (l *link) tell(side, number int) {
	m, o := l.w.mounts[l.ends[side]], l.w.mounts[l.ends[1-side]]
	if number != l.number || !l.up {
		return
	}
	life := m.life
	m.do(func() {
		if number != l.number || !l.up || m.life != life {
			return
		}
		m.linked[o.i] = number
		m.step(LinkUp{o.peer()})
		m.sendLogs(o)
		l.take(side)
	})
}

// disconnect ends a connection; both ends learn of it at different times.
func (w *world) disconnect(l *link) {
	if !l.up {
		return
	}
	w.say("link %d-%d breaks", l.ends[0], l.ends[1])
	number := l.number
	l.number++
	l.up = false
	for side := range 2 {
		m, o := w.mounts[l.ends[side]], w.mounts[l.ends[1-side]]
		w.in(w.after(20*time.Millisecond, 3*time.Second, 0.3), func() {
			m.do(func() {
				if m.linked[o.i] == number {
					m.linked[o.i] = 0
					m.step(LinkDown{o.peer()})
				}
			})
		})
	}
}

// send has fn happen at the other end, behind what was sent before on the stream.
func (l *link) send(from, stream int, fn func()) {
	side := 0
	if l.ends[1] == from {
		side = 1
	}
	to, number := l.w.mounts[l.ends[1-side]], l.number
	if l.w.mounts[from].linked[to.i] != number {
		return // into a connection that is no more
	}
	delay := l.w.after(3*time.Millisecond, 250*time.Millisecond, 0.05)
	at := max(l.w.t+delay, l.last[side][stream])
	l.last[side][stream] = at
	l.w.in(at-l.w.t, func() {
		if number == l.number {
			l.inbox[1-side] = append(l.inbox[1-side], func() {
				to.do(func() {
					if number == l.number && to.linked[from] == number {
						fn()
					}
				})
			})
			l.take(1 - side)
		}
	})
}

// take has a side take what has arrived, unless nothing passes or it does not know
// of the connection yet.
func (l *link) take(side int) {
	m, from := l.w.mounts[l.ends[side]], l.ends[1-side]
	if l.silent || m.machine == nil || m.linked[from] != l.number {
		return
	}
	list := l.inbox[side]
	l.inbox[side] = nil
	for _, fn := range list {
		fn()
	}
}

// resume lets through what was held up.
func (l *link) resume() {
	for side := range 2 {
		l.take(side)
	}
}
