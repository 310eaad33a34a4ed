package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/foreverfs/forever/internal/control"
)

// progressLine shows how replication goes, on a terminal only.
type progressLine struct {
	out   io.Writer
	bar   *progressbar.ProgressBar
	total uint64 // the most that was missing: the bar's full length
}

// newProgressLine returns a line on w; on anything but a terminal it stays silent.
func newProgressLine(w io.Writer) *progressLine {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progressLine{}
	}
	return &progressLine{out: w}
}

// show moves the bar. The bar measures bytes of chunks; changes count little.
func (l *progressLine) show(p control.Progress) {
	if l.out == nil {
		return
	}
	missing := p.MissingBytes + p.MissingBatches
	if missing > l.total || l.bar == nil && missing > 0 {
		l.total = missing
		l.bar = progressbar.NewOptions64(int64(l.total), progressbar.OptionSetWriter(l.out),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	}
	if l.bar == nil {
		return
	}
	if p.Want > 0 {
		l.bar.Describe(fmt.Sprintf("%d of %d devices", p.Have, p.Want))
	}
	// A bar that cannot be drawn is no reason to fail.
	_ = l.bar.Set64(int64(l.total - missing))
}

// done takes the bar away.
func (l *progressLine) done() {
	if l.bar != nil {
		_ = l.bar.Clear()
	}
}
