package transport

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"
)

// simulated runs a test in time that does not pass by itself, in a process of its
// own: yamux keeps its timers in a pool, and those of real time, or another test's,
// must not get into this one's.
func simulated(t *testing.T, test func(t *testing.T, m *Memory, n network)) {
	const env = "FOREVER_TEST_SIMULATED"
	if os.Getenv(env) == t.Name() {
		synctest.Test(t, func(t *testing.T) {
			m := NewMemory()
			test(t, m, network{m.Transport, func() string { return "there" }})
		})
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(soon(t), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSilentPeerIsDead(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		a, b := newNode(t, n, Config{}), listen(t, n, Config{})
		dialed, accepted := connect(t, a, b)
		near, far := open(t, dialed, accepted)
		time.Sleep(time.Hour)
		exchange(t, dialed, accepted, 1000) // an idle connection lasts

		m.Cut(a.id, b.id)
		from := time.Now()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, ErrDead) || !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		<-accepted.Done()
		if took := time.Since(from); took < 7*time.Second || took > 12*time.Second {
			t.Errorf("noticed after %v", took)
		}
		_, err := a.Dial(context.Background(), "there", b.id)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialed over a cut cable: %v", err)
		}
		m.Heal(a.id, b.id)
		dialed, accepted = connect(t, a, b)
		exchange(t, dialed, accepted, 1000)
		_, _ = near.Close(), far.Close()
	})
}

func TestShortCutLosesNothing(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		a, b := newNode(t, n, Config{}), listen(t, n, Config{})
		dialed, accepted := connect(t, a, b)
		for range 3 {
			m.Cut(b.id, a.id)
			go func() {
				time.Sleep(5 * time.Second)
				m.Heal(a.id, b.id)
			}()
			from := time.Now()
			exchange(t, dialed, accepted, 2<<20)
			if time.Since(from) < 5*time.Second {
				t.Error("bytes passed through the cut")
			}
		}
	})
}

// A slow link is no dead one, and what is urgent does not wait for what is large.
func TestSlowLink(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		m.SetLink(Link{Delay: 100 * time.Millisecond, Rate: 20_000})
		a, b := pair(t, n, Config{})
		large, largeFar := open(t, a, b)
		go large.Write(make([]byte, 10<<20))
		go io.Copy(io.Discard, largeFar)
		time.Sleep(time.Minute)
		from := time.Now()
		exchange(t, a, b, 10)
		// The pipe itself holds 256 KiB, as a kernel would.
		if took := time.Since(from); took > 60*time.Second {
			t.Errorf("a short exchange took %v", took)
		}
		check(t, large.Close())
		check(t, largeFar.Close())
	})
}

// One stream fills a link of 200 Mbit/s and 40 ms round trip.
func TestLongLinkIsFilled(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		link := Link{Delay: 20 * time.Millisecond, Rate: 25_000_000}
		m.SetLink(link)
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		const size = 30_000_000
		go func() {
			_, _ = near.Write(make([]byte, size))
			_ = near.Close()
		}()
		from := time.Now()
		got, err := io.Copy(io.Discard, far)
		check(t, err)
		check(t, far.Close())
		rate := float64(got) / time.Since(from).Seconds()
		if rate < 0.85*float64(link.Rate) {
			t.Errorf("%.0f bytes a second of %d", rate, link.Rate)
		}
	})
}

// A peer that says it lives but takes nothing is dropped in the end.
func TestPeerThatTakesNothing(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		a, b := newNode(t, n, Config{}), listen(t, n, Config{})
		dialed, accepted := connect(t, a, b)
		near, far := open(t, dialed, accepted)
		m.stall(a.id, b.id)
		from := time.Now()
		if _, err := near.Write(make([]byte, 64<<20)); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(from); took > 2*stallTimeout {
			t.Errorf("dropped after %v", took)
		}
		_, _ = near.Close(), far.Close()
	})
}

// stall cuts one direction of the present connections.
func (m *Memory) stall(from, to PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.lines {
		if l.ends == [2]PeerID{from, to} {
			l.there.change(func() { l.there.cut = true })
		}
	}
}

// A peer that does not let go of a stream is dropped in the end.
func TestPeerThatDoesNotStop(t *testing.T) {
	simulated(t, func(t *testing.T, m *Memory, n network) {
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		c := b.(*conn)
		c.mu.Lock()
		delete(c.streams, far.(*stream).mux.StreamID()) // so that it does not hear
		c.mu.Unlock()
		check(t, near.Close())
		from := time.Now()
		<-a.Done()
		if took := time.Since(from); took < stopTimeout || took > stopTimeout+watchSlack {
			t.Errorf("dropped after %v", took)
		}
		if _, err := a.Open(context.Background()); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	})
}

// watchSlack is how long after its time a watchdog may look.
const watchSlack = 5 * time.Second
