package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// treeGroup has everyday programs work on a source tree.
func treeGroup() group {
	return group{name: "tree", prepare: func(ctx context.Context, p *place) error { return p.makeTarball(ctx) }, rows: []row{
		{key: "untar", title: "untar of the Go source tree", unit: "s", target: 0.50, before: readTarball, run: untar},
		{key: "grep-cold", title: "`grep -r` over it, nothing cached", unit: "s", target: 0.50, cold: nothing, reads: true, run: grep},
		{key: "cp-r", title: "`cp -r` of it inside the mount", unit: "s", target: 0.40, run: copyTree},
		{key: "git", title: "git add and commit of it", unit: "s", target: 0.60, before: gitInit, run: gitCommit},
	}}
}

// readTarball has the kernel keep the archive.
func readTarball(_ context.Context, p *place) error {
	f, err := os.Open(p.tools.tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

func untar(ctx context.Context, p *place) (float64, error) {
	return 1, command(ctx, "", "tar", "-xf", p.tools.tarball, "-C", p.dir)
}

// grep looks for what is not there, so that all is read.
func grep(ctx context.Context, p *place) (float64, error) {
	err := command(ctx, "", "grep", "-rF", "nobody wrote this, "+"not even here", p.path("tree"))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return 1, nil
	}
	return 0, fmt.Errorf("grep found something: %w", err)
}

func copyTree(ctx context.Context, p *place) (float64, error) {
	return 1, command(ctx, "", "cp", "-r", p.path("tree"), p.path("copy"))
}

func gitInit(ctx context.Context, p *place) error {
	return command(ctx, p.path("tree"), "git", "init", "-q")
}

// gitCommit does without what git would go on with in the background.
func gitCommit(ctx context.Context, p *place) (float64, error) {
	if err := command(ctx, p.path("tree"), "git", "add", "-A"); err != nil {
		return 0, err
	}
	return 1, command(ctx, p.path("tree"), "git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0",
		"-c", "maintenance.auto=false", "commit", "-q", "-m", "all of it")
}
