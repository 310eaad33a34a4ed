package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The markers are looked for as they are; ciphertext does not contain them by chance.
const (
	markerName    = "planted-name-4f1d6c0b"
	markerContent = "planted-content-93ae27d5"
)

// secrets plants a file with known words and looks for them in what the machines
// keep and send.
func (d *demo) secrets() error {
	say("what is on the disks and on the wire")
	tap, err := newTap()
	if err != nil {
		show("the wire is not shown: %v", err)
	}
	text := strings.Repeat(markerContent+"\n", 2000)
	if err := os.WriteFile(filepath.Join(d.a.mount, markerName), []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := within(5*time.Second, func() bool {
		b, err := os.ReadFile(filepath.Join(d.b.mount, markerName))
		return err == nil && string(b) == text
	}); err != nil {
		return fmt.Errorf("b does not show the planted file: %w", err)
	}
	if _, err := d.fsmount("wait", "--replicas", "1", "--timeout", "1m", "--data", d.a.data); err != nil {
		return err
	}
	show("b reads the planted file; looking for its name and words elsewhere")
	for _, m := range []machine{d.a, d.b} {
		if err := searchDisk(m); err != nil {
			return err
		}
	}
	if tap == nil {
		return nil
	}
	return tap.search()
}

func hasMarker(b []byte) bool {
	return bytes.Contains(b, []byte(markerName)) || bytes.Contains(b, []byte(markerContent))
}

// searchDisk reads every file of a data directory.
func searchDisk(m machine) error {
	files, size := 0, int64(0)
	err := filepath.WalkDir(m.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		files, size = files+1, size+int64(len(b))
		if hasMarker(b) {
			return fmt.Errorf("the marker is in %s", path)
		}
		return nil
	})
	if err == nil {
		show("disk of %s: %d files, %d MiB: not found", m.name, files, size>>20)
	}
	return err
}

// ignoreGone forgives files that a running node removed meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// tap records what passes the loopback interface.
type tap struct {
	fd   int
	data []byte        // of the recorder until gone is closed
	done chan struct{} // closed: stop recording
	gone chan struct{} // closed: recording has stopped
}

// tapMax bounds what a tap keeps, in bytes.
const tapMax = 64 << 20

// newTap starts recording; the kernel gives raw packets only to root.
func newTap() (*tap, error) {
	const allProtocols = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(allProtocols))
	if err != nil {
		return nil, fmt.Errorf("recording packets needs root: %w", err)
	}
	// Timeouts let the reader notice the end; a greater buffer drops less.
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	t := &tap{fd: fd, done: make(chan struct{}), gone: make(chan struct{})}
	go t.record()
	return t, nil
}

func (t *tap) record() {
	defer close(t.gone)
	buf := make([]byte, 128<<10)
	for {
		select {
		case <-t.done:
			return
		default:
		}
		n, _, err := unix.Recvfrom(t.fd, buf, 0)
		if err != nil {
			continue // the timeout
		}
		if len(t.data)+n <= tapMax {
			t.data = append(t.data, buf[:n]...)
		}
	}
}

// search ends the recording and looks through it.
func (t *tap) search() error {
	close(t.done)
	<-t.gone
	if err := unix.Close(t.fd); err != nil {
		return err
	}
	if hasMarker(t.data) {
		return errors.New("the marker was on the wire")
	}
	if len(t.data) == 0 {
		return errors.New("nothing was recorded on the wire")
	}
	show("wire: %d KiB recorded: not found", len(t.data)>>10)
	return nil
}
