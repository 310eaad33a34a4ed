package transport

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The control stream is the first one, opened by whoever dialed. Both sides send
// messages of five bytes on it: what it is, and a stream's number.
const (
	controlAlive = 1 // the number is 0
	controlStop  = 2 // the sender reads no more of the stream
	controlSize  = 5
)

// stopTimeout is how long the other side may take to end a stream that it was
// told to stop.
const stopTimeout = 2 * time.Minute

// controlReader takes the other side's messages until the connection ends.
func (c *conn) controlReader() {
	var b [controlSize]byte
	for {
		if _, err := io.ReadFull(c.ctl, b[:]); err != nil {
			c.fail(fmt.Errorf("%w: control stream: %w", ErrProtocol, err))
			return
		}
		switch id := binary.BigEndian.Uint32(b[1:]); b[0] {
		case controlAlive:
		case controlStop:
			c.stop(id)
		default:
			c.fail(fmt.Errorf("%w: control message %d", ErrProtocol, b[0]))
			return
		}
	}
}

// controlWriter sends this side's messages: that it lives if it sent nothing else
// for a while, and which streams it is done with.
func (c *conn) controlWriter() {
	t := time.NewTicker(c.cfg.KeepAlive / 2)
	defer t.Stop()
	for {
		var b []byte
		select {
		case <-t.C:
			if now()-c.wire.lastOut.Load() >= int64(c.cfg.KeepAlive/2) {
				b = []byte{controlAlive, 0, 0, 0, 0}
			}
		case <-c.wake:
			for _, id := range c.takeStops() {
				b = binary.BigEndian.AppendUint32(append(b, controlStop), id)
			}
		case <-c.done:
			return
		}
		if len(b) == 0 {
			continue
		}
		if _, err := c.ctl.Write(b); err != nil {
			return // the connection has ended, and everybody hears of it
		}
	}
}

func (c *conn) takeStops() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := c.stops
	c.stops = nil
	return ids
}

// stop handles the other side's word that it reads no more of a stream: what is
// being written to it fails, and the stream's half ends.
func (c *conn) stop(id uint32) {
	c.mu.Lock()
	s := c.streams[id]
	if s == nil {
		c.note(id, earlyStop)
	}
	c.mu.Unlock()
	if s != nil && !s.stopped.Swap(true) {
		c.spawn(func() { _ = s.mux.Close() }) // which may have to wait for the link
	}
}

// watchdog ends the connection when the other side falls silent or holds on to
// what it should have let go.
func (c *conn) watchdog() {
	t := time.NewTicker(min(c.cfg.KeepAlive, c.cfg.IdleTimeout/8))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-c.done:
			return
		}
		if err := c.check(now()); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *conn) check(at int64) error {
	if silent := time.Duration(at - c.wire.lastIn.Load()); silent > c.cfg.IdleTimeout {
		return fmt.Errorf("%w: silent for %v", ErrDead, silent.Round(time.Millisecond))
	}
	if began := c.mux.began(); began != 0 && time.Duration(at-began) > stallTimeout {
		return fmt.Errorf("%w: a frame that does not end", ErrProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, s := range c.streams {
		if s.over && time.Duration(at-s.overAt) > stopTimeout {
			return fmt.Errorf("%w: it does not let go of stream %d", ErrProtocol, id)
		}
	}
	return nil
}
