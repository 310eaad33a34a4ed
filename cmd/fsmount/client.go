package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
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
	return heeding(ctx, tidyPatience, func() error { return fn(ctx, c) })
}

// otherPatience is how long a command waits for a node that another command has
// started for the moment, or that is starting or ending.
const otherPatience = 20 * time.Second

// withAnyNode calls fn with a client of the running node, or of one that it
// starts for the moment. fn is called again if the node has just ended before it
// was sent anything.
func withAnyNode(ctx context.Context, g *globals, fn func(context.Context, *control.Client) error) error {
	cfg, err := quietConfig(g)
	if err != nil {
		return err
	}
	return withConfigured(ctx, g, cfg, fn)
}

// withConfigured is withAnyNode where the node for the moment is as cfg says.
func withConfigured(ctx context.Context, g *globals, cfg node.Config, fn func(context.Context, *control.Client) error) error {
	for {
		n, err := ownNode(ctx, cfg)
		if err != nil {
			return err
		}
		err = withNode(ctx, g, fn)
		if n != nil {
			// Other commands may have found the node meanwhile; only a signal keeps them from what they do.
			err = errors.Join(err, n.Drain(ctx), n.Close())
			if n.Unheard() {
				fmt.Fprintln(g.err, "fsmount: no other device has heard of it yet; start the node (fsmount serve)")
			}
			return err
		}
		if !errors.Is(err, control.ErrNoNode) {
			return err
		}
	}
}

// ownNode returns a node for the moment, or nil if one runs that answers.
func ownNode(ctx context.Context, cfg node.Config) (*node.Node, error) {
	c := control.NewClient(cfg.Dir)
	defer c.Close()
	for deadline := time.Now().Add(otherPatience); ; {
		if node.Running(cfg.Dir) {
			if c.Alive(ctx) {
				return nil, nil
			}
		} else {
			n, err := node.Open(ctx, cfg)
			if fail.KindOf(err) != fail.InUse || time.Now().After(deadline) {
				return n, err
			}
		}
		if time.Now().After(deadline) {
			return nil, &fail.Error{Kind: fail.InUse, Op: "a process has " + cfg.Dir + " but does not answer", Next: "see its log, or end it"}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}
