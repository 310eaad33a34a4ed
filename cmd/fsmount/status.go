package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
)

// watchInterval is how often status --watch asks again.
const watchInterval = time.Second

type statusOptions struct {
	json  bool
	watch bool
}

func newStatusCmd(g *globals) *cobra.Command {
	var opts statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show devices, connections, replication and space",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			return withNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				return runStatus(ctx, g, c, opts)
			})
		}).cobra(),
	}
	cmd.Flags().BoolVar(&opts.json, "json", false, "print one JSON object; with --watch one a line")
	cmd.Flags().BoolVar(&opts.watch, "watch", false, "print again every second until interrupted")
	return cmd
}

func runStatus(ctx context.Context, g *globals, c *control.Client, opts statusOptions) error {
	bar := newProgressLine(g.err)
	for {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if err := printStatus(g.out, st, opts); err != nil {
			return err
		}
		if !opts.watch {
			return nil
		}
		bar.show(mostBehind(st))
		if !sleep(ctx, watchInterval) {
			bar.done()
			return nil
		}
	}
}

// mostBehind returns how far the connected device with the most to do is.
func mostBehind(st control.Status) control.Progress {
	p := control.Progress{}
	for _, d := range st.Devices {
		if d.Connected && d.MissingBytes >= p.MissingBytes {
			p.MissingBatches, p.MissingChunks, p.MissingBytes = d.MissingBatches, d.MissingChunks, d.MissingBytes
		}
	}
	return p
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func printStatus(w io.Writer, st control.Status, opts statusOptions) error {
	if opts.json {
		enc := json.NewEncoder(w)
		if !opts.watch {
			enc.SetIndent("", "  ")
		}
		return enc.Encode(st)
	}
	_, err := io.WriteString(w, statusText(st))
	return err
}

// statusText shows a status to a person.
func statusText(st control.Status) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", key, fmt.Sprintf(format, args...))
	}
	line("volume", "%s (%s)", st.Volume, st.Role)
	line("data", "%s", st.DataDir)
	if st.Mountpoint != "" {
		line("mounted at", "%s%s", st.Mountpoint, map[bool]string{true: " (read-only)"}[st.ReadOnly])
	}
	if st.Listen != "" {
		line("listening on", "%s", st.Listen)
	}
	if st.Directories > 0 { // a tree has a root; a keyless replica knows of none
		line("tree", "%s files, %s directories, %s", humanize.Comma(int64(st.Files)),
			humanize.Comma(int64(st.Directories)), humanize.IBytes(st.Bytes))
	}
	if c := st.Conflicts; c.Count > 0 {
		line("conflicts", "%s: %s", humanize.Comma(int64(c.Count)), conflictPaths(c))
	}
	line("store", "%s chunks, %s; %s of the disk free", humanize.Comma(int64(st.Store.Chunks)),
		humanize.IBytes(st.Store.Bytes), humanize.IBytes(st.Store.DiskFree))
	if st.Store.Quota > 0 {
		line("quota", "%s of %s used", humanize.IBytes(st.Store.Used), humanize.IBytes(st.Store.Quota))
	}
	for _, v := range st.Volumes {
		line("also serves", "%s%s", v.Volume, map[bool]string{true: ": " + v.Problem}[v.Problem != ""])
	}
	// tabwriter on a strings.Builder cannot fail.
	_ = t.Flush()
	b.WriteString("\n")
	b.WriteString(deviceTable(st.Devices))
	for _, p := range st.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	return b.String()
}

// shownConflicts is how many conflicts a status for people names.
const shownConflicts = 5

func conflictPaths(c control.Conflicts) string {
	n := min(shownConflicts, len(c.Paths))
	text := strings.Join(c.Paths[:n], ", ")
	if c.Count > uint64(n) {
		text += ", … (--json names more)"
	}
	return text
}

func deviceTable(devices []control.Device) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tROLE\tSTATE\tLACKS\tID")
	for _, d := range devices {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Name, d.Role, deviceState(d), deviceLacks(d), d.ID)
	}
	_ = t.Flush()
	return b.String()
}

func deviceState(d control.Device) string {
	switch {
	case d.Self:
		return "this device"
	case d.Connected && d.Via != "":
		return "connected via " + d.Via
	case d.Connected && d.Full:
		return "connected, has no room for more"
	case d.Connected && d.Mount == "disconnected":
		return "connected, mounts out of step (" + humanize.Time(d.MountSince) + ")"
	case d.Connected:
		return "connected"
	case d.LastSeen.IsZero():
		return "never seen"
	}
	return "last seen " + humanize.Time(d.LastSeen)
}

func deviceLacks(d control.Device) string {
	switch {
	case d.Self:
		return "-"
	case d.MissingBatches == 0 && d.MissingChunks == 0:
		return "nothing"
	}
	return fmt.Sprintf("%s, %s (%s)", english.Plural(int(d.MissingBatches), "change", ""), english.Plural(int(d.MissingChunks), "chunk", ""), humanize.IBytes(d.MissingBytes))
}
