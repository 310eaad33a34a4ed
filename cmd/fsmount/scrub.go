package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

func newScrubCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Verify everything on this disk, and mend what is damaged from other devices",
		Long: `Read and verify everything in the data directory: each chunk by its name, the logs by their
signatures, the files of the state by their checksums. Damaged chunks are fetched from other
devices; those that nobody has are reported each time, until they are there again. It ends
with exit code 21 if something was damaged that could not be mended.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			cfg, err := quietConfig(g)
			if err != nil {
				return err
			}
			cfg.Verify = true
			return withConfigured(ctx, g, cfg, func(ctx context.Context, c *control.Client) error { return runScrub(ctx, g, c, asJSON) })
		}).cobra(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func runScrub(ctx context.Context, g *globals, c *control.Client, asJSON bool) error {
	bar := newProgressLine(g.err)
	rep, err := c.Scrub(ctx, func(p control.ScrubProgress) {
		bar.show(control.Progress{MissingBatches: p.Total - min(p.Chunks, p.Total) + p.Damaged})
	})
	bar.done()
	if err != nil {
		return err
	}
	if asJSON {
		err = json.NewEncoder(g.out).Encode(rep)
	} else {
		_, err = fmt.Fprint(g.out, scrubText(rep))
	}
	if err == nil && rep.Lost > 0 {
		return &fail.Error{Kind: fail.Damaged, Op: english.Plural(int(rep.Lost), "thing", "") + " on this disk damaged beyond mending here", Next: "see what was printed"}
	}
	return err
}

// scrubText tells a person what a scrub found.
func scrubText(rep control.ScrubReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s chunks (%s), %s batches and control entries, %s keys of the state verified\n",
		humanize.Comma(int64(rep.Chunks)), humanize.IBytes(rep.Bytes), humanize.Comma(int64(rep.Batches+rep.Entries)), humanize.Comma(int64(rep.Keys)))
	switch {
	case rep.Damaged > 0:
		fmt.Fprintf(&b, "damaged: %s, of which %d mended\n", english.Plural(int(rep.Damaged), "chunk", ""), rep.Mended)
	case len(rep.Problems) == 0:
		b.WriteString("nothing is damaged\n")
	}
	for _, p := range rep.Problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}
