package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/replica"
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
	damaged, err := n.stillDamaged(ctx) // also what was found before
	if err != nil {
		return rep, err
	}
	damaged = append(damaged, chunks.Damaged...)
	slices.SortFunc(damaged, func(a, b chunk.ID) int { return bytes.Compare(a[:], b[:]) })
	damaged = slices.Compact(damaged)
	rep.Chunks, rep.Bytes, rep.Damaged = chunks.Chunks, chunks.Bytes, uint64(len(damaged)+chunks.Records)
	rep.Mended = uint64(chunks.Records)
	for _, number := range chunks.Packs {
		rep.Problems = append(rep.Problems, fmt.Sprintf("the header of pack %08x was damaged: its chunks were written anew", number))
	}
	lost, err := n.mend(ctx, damaged, func(left int) {
		fn(control.ScrubProgress{Chunks: rep.Chunks, Total: rep.Chunks, Bytes: rep.Bytes, Damaged: uint64(left)})
	})
	if err == nil {
		_, err = n.stillDamaged(ctx)
	}
	if err != nil {
		return rep, err
	}
	rep.Lost += uint64(len(lost))
	rep.Mended += uint64(len(damaged) - len(lost))
	for _, id := range damaged {
		if err := lost[id]; err != nil {
			rep.Problems = append(rep.Problems, fmt.Sprintf("chunk %v is damaged, and nobody reachable has it: %v", id, words(err)))
		}
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

// mendWorkers is how many damaged chunks are fetched at a time.
const mendWorkers = 8

// mend fetches damaged chunks from other devices, and returns why that did not succeed, by chunk. left is told how many are
// still to be tried, by one goroutine at a time.
func (n *Node) mend(ctx context.Context, ids []chunk.ID, left func(int)) (lost map[chunk.ID]error, err error) {
	asked := map[replica.DeviceID]bool{}
	for len(ids) > 0 {
		if _, err := n.addConnected(asked); err != nil {
			return nil, err
		}
		if lost, err = n.fetchAgain(ctx, ids, n.repl.FetchAtOnce, left); err != nil || len(lost) == 0 {
			return nil, err
		}
		ids = slices.DeleteFunc(slices.Clone(ids), func(id chunk.ID) bool { return lost[id] == nil })
		// A device that is being dialed may have them. What one of them waits for, all have waited for.
		again, err := n.fetchAgain(ctx, ids[:1], n.repl.Fetch, func(int) {})
		if err != nil {
			return nil, err
		}
		more, err := n.addConnected(asked)
		if err != nil {
			return nil, err
		}
		if len(again) == 0 {
			delete(lost, ids[0])
			ids = ids[1:]
		} else if !more {
			return lost, nil
		}
	}
	return lost, nil
}

// addConnected adds the devices that are connected now to a set, and reports whether there are more of them.
func (n *Node) addConnected(to map[replica.DeviceID]bool) (more bool, err error) {
	st, err := n.repl.Status()
	for _, d := range st.Devices {
		if d.Connected && !to[d.ID] {
			to[d.ID], more = true, true
		}
	}
	return more, err
}

// fetchAgain brings back chunks that were damaged, and returns why it could not, by chunk.
func (n *Node) fetchAgain(ctx context.Context, ids []chunk.ID, fetch func(context.Context, chunk.ID) ([]byte, error), left func(int)) (map[chunk.ID]error, error) {
	var g errgroup.Group
	g.SetLimit(mendWorkers)
	var mu sync.Mutex
	lost, done := map[chunk.ID]error{}, 0
	for _, id := range ids {
		g.Go(func() error {
			sealed, err := fetch(ctx, id)
			if err == nil {
				_, err = n.store.Put(ctx, id, sealed)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost[id] = err
			}
			done++
			left(len(ids) - done)
			return ctx.Err()
		})
	}
	return lost, g.Wait()
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
