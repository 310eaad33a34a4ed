package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is one run.
type bench struct {
	options
	base    string // where everything is; removed at the end
	data    *source
	log     io.Writer
	tools   tools
	results report
	drops   int // how often the kernel's caches were dropped
}

// tools are what was built, found or made for this run.
type tools struct {
	fsmount, ceiling, gocryptfs string
	tarball                     string
}

// run measures what is asked for, prints the tables to out and what goes on to log.
func run(ctx context.Context, opts options, out, log io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("mounting and dropping the kernel's caches needs root")
	}
	base, err := os.MkdirTemp(opts.dir, "forever-bench-")
	if err != nil {
		return err
	}
	b := &bench{options: opts, base: base, data: newSource(), log: log, results: newReport(opts)}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	b.logf("building")
	if err := b.build(ctx); err != nil {
		return err
	}
	for _, m := range opts.measures {
		measure := map[string]func(context.Context) error{"rows": b.rows, "amplify": b.amplify, "idle": b.idle, "million": b.million}[m]
		if e := measure(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", m, e))
		}
		if ctx.Err() != nil {
			break
		}
	}
	b.results.markdown(out)
	if opts.json != "" {
		text, e := json.MarshalIndent(b.results, "", "\t")
		err = errors.Join(err, e, os.WriteFile(opts.json, append(text, '\n'), 0o644))
	}
	return err
}

// build makes the programs.
func (b *bench) build(ctx context.Context) error {
	b.tools = tools{fsmount: filepath.Join(b.base, "fsmount"), ceiling: filepath.Join(b.base, "ceiling"), tarball: filepath.Join(b.base, "tree.tar")}
	const module = "github.com/foreverfs/forever/"
	for _, args := range [][]string{
		{"build", "-o", b.tools.fsmount, module + "cmd/fsmount"},
		{"test", "-c", "-o", b.tools.ceiling, module + "fusefs"},
	} {
		if err := command(ctx, "", "go", args...); err != nil {
			return err
		}
	}
	b.tools.gocryptfs, _ = exec.LookPath("gocryptfs") // without it, it is not measured
	return nil
}

// makeTarball packs the source tree once.
func (b *bench) makeTarball(ctx context.Context) error {
	if _, err := os.Stat(b.tools.tarball); err == nil {
		return nil
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find Go's source tree: %w", err)
	}
	tree := filepath.Join(strings.TrimSpace(string(root)), b.scale.Tree)
	return command(ctx, "", "tar", "-cf", b.tools.tarball, "--owner=0", "--group=0", "-C", filepath.Dir(tree),
		"--transform", "s,^"+filepath.Base(tree)+",tree,", filepath.Base(tree))
}

// command runs a program that must succeed.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "CGO_ENABLED=0") // fsmount is built as it is shipped
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out[max(0, len(out)-1000):])
	}
	return nil
}

func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
