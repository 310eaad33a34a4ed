package main

import (
	"context"
	"errors"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/node"
)

// withNode calls fn with a client of the running node.
func withNode(ctx context.Context, g *globals, fn func(context.Context, *control.Client) error) error {
	dir, err := g.dir()
	if err != nil {
		return err
	}
	c := control.NewClient(dir)
	defer c.Close()
	return fn(ctx, c)
}

// withAnyNode calls fn with a client of the running node, or of one that it
// starts for the moment.
func withAnyNode(ctx context.Context, g *globals, fn func(context.Context, *control.Client) error) error {
	cfg, err := quietConfig(g)
	if err != nil {
		return err
	}
	if node.Running(cfg.Dir) {
		return withNode(ctx, g, fn)
	}
	n, err := node.Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = withNode(ctx, g, fn)
	return errors.Join(err, n.Close())
}
