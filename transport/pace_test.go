package transport

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// A connection lives with any limit, however long what is on its way takes to be allowed: bytes go and come all the time.
func TestSlowestLimits(t *testing.T) {
	const limit, size = 8 << 10, 96 << 10
	for name, set := range map[string]func(from, to *Config){
		"upload":   func(from, _ *Config) { from.UploadLimit = limit },
		"download": func(_, to *Config) { to.DownloadLimit = limit },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := networks["tcp"](t)
			from := Config{KeepAlive: time.Second, IdleTimeout: 4 * time.Second}
			to := from
			set(&from, &to)
			dialed, accepted := connect(t, newNode(t, n, from), listen(t, n, to))
			near, err := dialed.Open(soon(t))
			check(t, err)
			sent := make(chan error, 1)
			go func() {
				_, err := near.Write(make([]byte, size))
				sent <- err
			}()
			far, err := accepted.Accept(soon(t))
			check(t, err)
			got := make([]byte, size)
			if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, make([]byte, size)) {
				t.Errorf("not what was sent: %v", err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

// What waits until it may read on does not hold up the end of the connection.
func TestCloseEndsTheWaitForALimit(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := newWire(near, newPace(near, nil, limiter(1))) // half an hour for 2 KiB
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, w)
		done <- err
	}()
	_, err := far.Write(make([]byte, 2*minFrame)) // returns when all was read
	check(t, err)
	check(t, w.Close())
	select {
	case <-done:
	case <-soon(t).Done():
		t.Error("it still waits")
	}
}
