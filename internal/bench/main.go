// Command bench measures a mount against the local file system below it, against
// gocryptfs, and against what the dispatch could reach with nothing behind it, all in
// turn, so that what disturbs the machine disturbs them alike. It prints a Markdown
// table with the targets; docs/performance.md says what each row does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, opts, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// measures are what can be asked for; the last takes long to prepare and is not done unasked.
var measures = []string{"rows", "amplify", "idle", "million"}

// options are what a run is asked to do.
type options struct {
	measures []string
	rows     *regexp.Regexp
	rounds   int
	systems  []string
	scale    scale
	json     string
	dir      string
	profile  bool
}

// scale says how much is done.
type scale struct {
	Size         int64  // bytes of the large file
	Files        int    // small files in one directory
	Listed       int    // files in the directory that is listed
	Fsyncs       int    // small files that are made durable one by one
	RandomReads  int    // of 4 KiB
	RandomWrites int    // of 4 KiB
	Transactions int    // of the database
	Tree         string // directory below $(go env GOROOT)
	Updates      int    // fsyncs of the amplification
	Million      int    // files of the large volume
	Patience     int    // seconds to wait for a server to have nothing left to do
}

func fullScale() scale {
	return scale{Size: 1 << 30, Files: 5000, Listed: 100_000, Fsyncs: 200, RandomReads: 4000, RandomWrites: 10_000,
		Transactions: 1000, Tree: "src", Updates: 1000, Million: 1_000_000, Patience: 15}
}

// quickScale is for trying the program: its figures mean nothing.
func quickScale() scale {
	return scale{Size: 32 << 20, Files: 200, Listed: 2000, Fsyncs: 10, RandomReads: 200, RandomWrites: 300,
		Transactions: 20, Tree: "src/net", Updates: 50, Million: 5000, Patience: 1}
}

func parse(args []string, errOut io.Writer) (options, error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.Usage = func() {
		fmt.Fprintf(errOut, "usage: bench [flags] [%s]...\nWithout an argument all but the last are measured.\n", strings.Join(measures, "|"))
		fs.PrintDefaults()
	}
	rows := fs.String("rows", "", "measure only rows whose key matches this regular expression: "+strings.Join(keys(), " "))
	rounds := fs.Int("rounds", 3, "how often each row is measured on each system")
	list := fs.String("systems", strings.Join(systemNames, ","), "what to measure")
	size := fs.Int64("size", 0, "bytes of the large file (default 1 GiB)")
	files := fs.Int("files", 0, "how many small files (default 5000)")
	quick := fs.Bool("quick", false, "little of everything and one round, to see that it works")
	json := fs.String("json", "", "write the results to this file as JSON, with every single figure")
	prof := fs.Bool("profile", false, "say also in which layers the node's time goes; rows take longer")
	dir := fs.String("dir", "", "where to work: a directory on the local disk (default: the one for temporary files)")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	opts := options{rounds: *rounds, systems: strings.Split(*list, ","), scale: fullScale(), json: *json, dir: *dir, profile: *prof, measures: fs.Args()}
	if *quick {
		opts.scale, opts.rounds = quickScale(), 1
	}
	if *size > 0 {
		opts.scale.Size = *size &^ (1<<20 - 1)
	}
	if *files > 0 {
		opts.scale.Files = *files
	}
	var err error
	if opts.rows, err = regexp.Compile(*rows); err != nil {
		return options{}, err
	}
	return opts, opts.check()
}

func (o *options) check() error {
	if len(o.measures) == 0 {
		o.measures = measures[:len(measures)-1]
	}
	for _, m := range o.measures {
		if !slices.Contains(measures, m) {
			return fmt.Errorf("there is no %q to measure; there are %s", m, strings.Join(measures, ", "))
		}
	}
	for _, s := range o.systems {
		if !slices.Contains(systemNames, s) {
			return fmt.Errorf("there is no system %q; there are %s", s, strings.Join(systemNames, ", "))
		}
	}
	if o.rounds < 1 || o.scale.Size < 16<<20 {
		return errors.New("at least one round, and 16 MiB")
	}
	return nil
}
