package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

func newHistoryCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history PATH",
		Short: "Show what a path of the tree had before",
		Long: `Show every content that a path has or had, newest first: the version that
restore takes, when it was published, by which device, its size, and what became
of it: current, conflict (another won the name), replaced or removed. Of a
directory it shows the names that are or were in it. The path may be gone.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				h, err := c.History(ctx, args[0])
				if err != nil {
					return err
				}
				return printHistory(g.out, h, asJSON)
			})
		}).cobra(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printHistory(w io.Writer, h control.History, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(h)
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if h.Entries != nil {
		fmt.Fprintln(t, "CREATED\tREMOVED\tKIND\tNAME")
		for _, e := range h.Entries {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", when(e.Created), when(e.Removed), e.Kind, e.Name)
		}
	} else {
		fmt.Fprintln(t, "VERSION\tPUBLISHED\tDEVICE\tSIZE\tSTATE")
		for _, c := range h.Contents {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Version, when(c.Time), c.Device, humanize.IBytes(uint64(c.Size)), stateOf(c))
		}
	}
	// tabwriter on a strings.Builder cannot fail.
	_ = t.Flush()
	_, err := io.WriteString(w, b.String())
	return err
}

// when shows a time of the past in this machine's zone.
func when(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func stateOf(c control.PastContent) string {
	text := c.State
	if c.Target != "" {
		text += " -> " + c.Target
	}
	if c.RemovedBy != "" {
		text += fmt.Sprintf(", name removed %s by %s", when(c.Removed), c.RemovedBy)
	}
	return text
}

func newRestoreCmd(g *globals) *cobra.Command {
	var at, to string
	cmd := &cobra.Command{
		Use:   "restore PATH --at TIME|VERSION",
		Short: "Bring back what a path of the tree was",
		Long: `Bring back a content that a path had: by its version (fsmount history PATH), or as
it was at a time: 2026-11-22T10:30:00Z, "2026-11-22 10:30" in this machine's zone,
or an age such as 90m, 2h or 3d. Nothing is copied, and what the path shows now goes
into its history. A directory is brought back with a time: what was removed or
changed since is as it was then; what was made since stays.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			req := control.RestoreRequest{Path: args[0], To: to}
			if err := parseAt(at, time.Now(), &req); err != nil {
				return err
			}
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				done, err := c.Restore(ctx, req)
				if err == nil {
					_, err = fmt.Fprintln(g.err, "restored "+english.Plural(done.Files, "file", ""))
				}
				return err
			})
		}).cobra(),
	}
	cmd.Flags().StringVar(&at, "at", "", "a version, a time, or how long ago (required)")
	cmd.Flags().StringVar(&to, "to", "", "bring it back under another path")
	return cmd
}

var (
	versionForm = regexp.MustCompile(`^[0-9a-f]{8}$`)
	daysForm    = regexp.MustCompile(`^([0-9]{1,5})d$`)
)

// parseAt reads what --at says.
func parseAt(at string, now time.Time, req *control.RestoreRequest) error {
	if versionForm.MatchString(at) {
		req.Version = at
		return nil
	}
	if m := daysForm.FindStringSubmatch(at); m != nil {
		days := 0
		_, err := fmt.Sscan(m[1], &days)
		req.Time = now.AddDate(0, 0, -days)
		return err
	}
	if age, err := time.ParseDuration(at); err == nil && age >= 0 {
		req.Time = now.Add(-age)
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, at, now.Location()); err == nil {
			req.Time = t
			return nil
		}
	}
	return &fail.Error{Kind: fail.Usage, Op: fmt.Sprintf("--at %q is no version, time or age", at),
		Next: `give a version from fsmount history, a time such as "2026-11-22 10:30", or an age such as 2h`}
}
