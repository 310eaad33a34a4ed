package fusefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wishes records what is written to the device.
type wishes struct {
	mu     sync.Mutex
	values []int32
	closed bool
}

func (w *wishes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.values = append(w.values, int32(binary.NativeEndian.Uint32(b)))
	return len(b), nil
}

func (w *wishes) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return nil
}

func (w *wishes) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.values)
}

func TestIdlePollWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wishes{}
		p := newIdlePoll(w)
		pace := func(n int, pause time.Duration) {
			for range n {
				time.Sleep(pause)
				p.request()
			}
			synctest.Wait()
		}
		expect := func(when, want string) {
			t.Helper()
			if got := w.String(); got != want {
				t.Fatalf("%s: %s, want %s", when, got, want)
			}
		}
		pace(1000, time.Millisecond)
		expect("a thousand requests a second", "[]")
		pace(1000, 100*time.Microsecond)
		expect("ten thousand a second", "[0]")
		time.Sleep(2*busyTime + time.Millisecond)
		synctest.Wait()
		expect("nothing for a while", "[0 -1]")
		pace(1000, time.Millisecond)
		expect("few again", "[0 -1]")
		pace(3*busyRequests, time.Microsecond)
		expect("many again", "[0 -1 0]")
		if err := p.close(); err != nil || !w.closed {
			t.Fatalf("close: %v, closed %v", err, w.closed)
		}
		pace(100, time.Microsecond)
		time.Sleep(time.Second)
		expect("after close", "[0 -1 0]")
	})
}

func TestIdlePollWherePollingPays(t *testing.T) {
	const driver, ns, online = "devices/system/cpu/cpuidle/current_driver", "module/haltpoll/parameters/guest_halt_poll_ns", "devices/system/cpu/online"
	guest := map[string]string{driver: "haltpoll\n", ns: "0\n", online: "0-3\n"}
	for name, c := range map[string]struct {
		change map[string]string
		want   bool
	}{
		"a guest that does not poll": {nil, true},
		"one that does":              {map[string]string{ns: "200000\n"}, false},
		"bare metal":                 {map[string]string{driver: "intel_idle\n"}, false},
		"many processors":            {map[string]string{online: "0-3,6,8-31\n"}, false},
		"a list nobody understands":  {map[string]string{online: "all\n"}, false},
		"no such files":              {map[string]string{driver: "", ns: "", online: ""}, false},
	} {
		sys := t.TempDir()
		for path, text := range guest {
			if other, ok := c.change[path]; ok {
				text = other
			}
			if text == "" {
				continue
			}
			path = filepath.Join(sys, path)
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			must(t, os.WriteFile(path, []byte(text), 0o600))
		}
		if got := pollingPays(sys); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestIdlePollOnMount(t *testing.T) {
	dev, err := os.Open(latencyDevice)
	if err != nil {
		t.Skip(err)
	}
	defer dev.Close()
	r := mount(t, func(cfg *Config) { cfg.IdlePoll = IdlePollOn })
	path := r.path("file")
	until(t, "processors wake at once while the mount is busy", func() bool {
		for range 100 {
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Remove(path))
		}
		b := make([]byte, 4)
		_, err := dev.ReadAt(b, 0)
		must(t, err)
		return binary.NativeEndian.Uint32(b) == 0
	})
}
