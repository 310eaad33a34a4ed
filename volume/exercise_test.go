package volume

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExercise does to a file whatever can be done to it, while all that is done behind it is done all the time, and compares it with a slice
// of bytes to which the same was done, as fsx does (Avadis Tevanian's file system exerciser). FOREVER_SEED repeats a run.
func TestExercise(t *testing.T) {
	seed := time.Now().UnixNano()
	if s, err := strconv.ParseInt(os.Getenv("FOREVER_SEED"), 10, 64); err == nil {
		seed = s
	}
	length := 3 * time.Second
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		length = time.Minute
	}
	for i := range int64(4) {
		t.Run(fmt.Sprint("seed ", seed+i), func(t *testing.T) {
			t.Parallel()
			e := newExerciser(t, seed+i)
			e.run(length)
		})
	}
}

type exerciser struct {
	t     *testing.T
	r     *rig
	h     *Handle
	rnd   *rand.Rand
	want  []byte
	max   int // the greatest size of the file
	steps []string
}

func newExerciser(t *testing.T, seed int64) *exerciser {
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		c.PublishInterval, c.FlushInterval = time.Millisecond, time.Millisecond
	})
	return &exerciser{t: t, r: r, h: r.create("f"), rnd: rand.New(rand.NewPCG(uint64(seed), 0)), max: []int{2 << 14, 12 << 14}[seed&1]}
}

func (e *exerciser) run(length time.Duration) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := e.r.SyncAll(ctx); err != nil {
				e.t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := e.step(); err != nil {
			e.t.Fatalf("after %d steps: %v\n%s", len(e.steps), err, e.last(60))
		}
	}
	e.t.Logf("%d steps", len(e.steps))
}

func (e *exerciser) last(n int) string {
	var b bytes.Buffer
	for _, s := range e.steps[max(0, len(e.steps)-n):] {
		b.WriteString(s + "\n")
	}
	return b.String()
}

// span returns a place and a length below some size, often whole pages or blocks.
func (e *exerciser) span(size int) (off, n int) {
	if e.rnd.IntN(2) == 0 {
		size = min(size, 1<<14)
	}
	off = e.rnd.IntN(size)
	n = 1 + e.rnd.IntN(min(size-off, 4<<14))
	if unit := []int{1, 1 << 12, 1 << 14}[e.rnd.IntN(3)]; unit > 1 {
		off, n = off&-unit, (n+unit-1)&-unit
	}
	return off, min(n, size-off)
}

func (e *exerciser) note(format string, args ...any) {
	e.steps = append(e.steps, fmt.Sprintf(format, args...))
}

func (e *exerciser) grow(size int) {
	if size > len(e.want) {
		e.want = append(e.want, make([]byte, size-len(e.want))...)
	}
}

func (e *exerciser) step() error {
	switch e.rnd.IntN(10) {
	case 0, 1, 2:
		return e.write()
	case 3:
		return e.truncate()
	case 4, 5:
		return e.zero(e.rnd.IntN(2) == 0)
	case 6:
		return e.copy()
	case 7:
		if e.rnd.IntN(4) > 0 {
			return nil
		}
		e.note("fsync")
		return e.h.Fsync(ctx)
	}
	return e.check()
}

func (e *exerciser) write() error {
	off, n := e.span(e.max)
	e.note("write %#x to %#x", off, off+n)
	data := make([]byte, n)
	for i := range data { // content that comes again in the same place
		data[i] = byte(1 + (off+i)>>12)
	}
	if e.rnd.IntN(2) == 0 {
		data = bytes.Repeat([]byte{byte(1 + len(e.steps)%255)}, n)
	}
	e.grow(off + n)
	copy(e.want[off:], data)
	_, err := e.h.Write(ctx, data, int64(off))
	return err
}

func (e *exerciser) truncate() error {
	size := e.rnd.IntN(e.max)
	if e.rnd.IntN(2) == 0 {
		size, _ = e.span(e.max)
	}
	e.note("truncate %#x to %#x", len(e.want), size)
	e.grow(size)
	e.want = e.want[:size:size]
	return truncate(e.h, int64(size))
}

func (e *exerciser) zero(keep bool) error {
	off, n := e.span(e.max)
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if !keep {
		mode = unix.FALLOC_FL_ZERO_RANGE
		e.grow(off + n)
	}
	e.note("zero %#x to %#x, keep size %v", off, off+n, keep)
	if off < len(e.want) {
		clear(e.want[off:min(off+n, len(e.want))])
	}
	return e.h.Allocate(ctx, int64(off), int64(n), mode)
}

func (e *exerciser) copy() error {
	if len(e.want) == 0 {
		return nil
	}
	from, n := e.span(len(e.want))
	to := e.rnd.IntN(e.max - n + 1)
	if e.rnd.IntN(2) == 0 {
		to &^= 4095
	}
	if to < from+n && from < to+n {
		return nil // overlapping
	}
	e.note("copy %#x to %#x to %#x", from, from+n, to)
	done, err := e.r.Copy(ctx, e.h, int64(from), e.h, int64(to), int64(n))
	if err == nil && done != int64(n) {
		err = fmt.Errorf("copied %d of %d bytes", done, n)
	}
	e.grow(to + n)
	copy(e.want[to:], bytes.Clone(e.want[from:from+n]))
	return err
}

func (e *exerciser) check() error {
	if len(e.want) == 0 {
		return nil
	}
	off, n := e.span(len(e.want))
	e.note("read %#x to %#x", off, off+n)
	got := make([]byte, n)
	if m, err := e.h.Read(ctx, got, int64(off)); err != nil || m != n {
		return errors.Join(fmt.Errorf("read %d of %d bytes", m, n), err)
	}
	for i, b := range got {
		if want := e.want[off+i]; b != want {
			return fmt.Errorf("at %#x is %d, want %d", off+i, b, want)
		}
	}
	return nil
}
