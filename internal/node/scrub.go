package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/control"
)

// Scrub implements control.Node: it reads and verifies everything in the data directory, and fetches what is
// damaged and other devices have.
func (c controlNode) Scrub(ctx context.Context, fn func(control.ScrubProgress)) (control.ScrubReport, error) {
	n := c.n
	// The stores stay open until this has returned, and the node does not wait long for that.
	n.wg.Add(1)
	defer n.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.waiting, cancel)()
	rep := control.ScrubReport{Problems: append([]string{}, n.noticed...)}
	chunks, err := n.store.Scrub(ctx, func(p casstore.Progress) {
		fn(control.ScrubProgress{Chunks: p.Chunks, Total: p.TotalChunks, Bytes: p.Bytes})
	})
	switch {
	case errors.Is(err, casstore.ErrIndex): // the rest can be verified all the same
		rep.Lost++
		rep.Problems = append(rep.Problems, "the index of the chunks is damaged, so not all chunks were verified; the next start makes it anew: scrub again after that")
		if err := n.dir.rebuildIndex(); err != nil {
			return rep, err
		}
	case err != nil:
		return rep, err
	}
	rep.Chunks, rep.Bytes, rep.Damaged = chunks.Chunks, chunks.Bytes, uint64(len(chunks.Damaged)+chunks.Records)
	rep.Mended = uint64(chunks.Records)
	for _, number := range chunks.Packs {
		rep.Problems = append(rep.Problems, fmt.Sprintf("the header of pack %08x was damaged: its chunks were written anew", number))
	}
	for _, id := range chunks.Damaged {
		if err := n.fetchAgain(ctx, id); err != nil {
			if ctx.Err() != nil {
				return rep, ctx.Err()
			}
			rep.Lost++
			rep.Problems = append(rep.Problems, fmt.Sprintf("chunk %v is damaged, and nobody reachable has it: %v", id, words(err)))
			continue
		}
		rep.Mended++
	}
	verified, wrong, err := n.repl.Verify(ctx)
	rep.Entries, rep.Batches = verified.Entries, verified.Batches
	if err != nil {
		rep.Problems = append(rep.Problems, err.Error())
		rep.Lost++
	}
	rep.Problems = append(rep.Problems, wrong...)
	rep.Lost += uint64(len(wrong))
	return rep, n.scrubState(ctx, &rep)
}

// fetchAgain brings back a chunk that was damaged.
func (n *Node) fetchAgain(ctx context.Context, id chunk.ID) error {
	sealed, err := n.repl.Fetch(ctx, id)
	if err != nil {
		return err
	}
	_, err = n.store.Put(ctx, id, sealed)
	return err
}

// scrubState reads the whole state, which checks the sums of all blocks in use, and compares the tables with
// what they were when the node ended last.
func (n *Node) scrubState(ctx context.Context, rep *control.ScrubReport) error {
	err := n.state.Scan(nil, nil, func(_, _ []byte) bool {
		rep.Keys++
		return ctx.Err() == nil // a node that ends closes the state soon
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		rep.Lost++
		rep.Problems = append(rep.Problems, "the state is damaged: "+err.Error())
	}
	tables, checked, err := n.dir.damagedTables(ctx, n.sums)
	if err != nil {
		return err
	}
	rep.Files = uint64(checked)
	tables = append(tables, n.damaged...)
	slices.Sort(tables)
	for _, name := range slices.Compact(tables) {
		text := "file " + n.dir.join(name) + " is not as it was written"
		if strings.HasPrefix(name, chunksName+"/") {
			text += "; the next start makes the index of the chunks anew"
			if err := n.dir.rebuildIndex(); err != nil {
				return err
			}
		} else {
			rep.Lost++
			text += ": restore the data directory from a copy, or let this device join anew with another --data"
		}
		rep.Problems = append(rep.Problems, text)
	}
	return nil
}
