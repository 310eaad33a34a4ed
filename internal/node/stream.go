package node

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/volume"
)

const (
	// streamLog is the log2 of the block size of what is stored as a stream.
	streamLog = chunk.MaxBlockLog
	// streamAhead is how many blocks a reader of a stream fetches before they are asked for.
	streamAhead = 8
	// streamNodes is how many blocks are entered into the block tree at once.
	streamNodes = 1024
)

// sealedNodes lets block trees read and write their nodes as sealed chunks.
type sealedNodes struct {
	chunks volume.Chunks
	sealer volume.Sealer
	last   struct { // the node read last: blocks are read in order
		id    chunk.ID
		plain []byte
	}
}

var _ chunk.NodeIO = (*sealedNodes)(nil)

// LoadNode implements chunk.NodeIO.
func (s *sealedNodes) LoadNode(ctx context.Context, id chunk.ID) ([]byte, error) {
	if s.last.id == id {
		return s.last.plain, nil
	}
	plain, err := s.load(ctx, id)
	if err == nil {
		s.last.id, s.last.plain = id, plain
	}
	return plain, err
}

func (s *sealedNodes) load(ctx context.Context, id chunk.ID) ([]byte, error) {
	sealed, err := s.chunks.Get(ctx, nil, id)
	if err != nil {
		return nil, fmt.Errorf("get chunk %v: %w", id, err)
	}
	plain, err := s.sealer.Open(nil, sealed)
	if err != nil {
		return nil, fmt.Errorf("open chunk %v: %w", id, err)
	}
	return plain, nil
}

// SaveNode implements chunk.NodeIO.
func (s *sealedNodes) SaveNode(ctx context.Context, plain []byte) (chunk.ID, error) {
	sealed, err := s.sealer.Seal(nil, plain)
	if err != nil {
		return chunk.ID{}, fmt.Errorf("seal a block: %w", err)
	}
	id, err := s.chunks.Put(ctx, sealed)
	if err != nil {
		return chunk.ID{}, fmt.Errorf("store a block: %w", err)
	}
	return id, nil
}

// streamWriter stores what is written to it like the content of a file.
type streamWriter struct {
	ctx     context.Context
	nodes   *sealedNodes
	version chunk.Version
	block   []byte
	blocks  map[int64]chunk.ID // not in the tree yet
	size    int64              // of all full blocks
}

func newStreamWriter(ctx context.Context, nodes *sealedNodes) *streamWriter {
	return &streamWriter{
		ctx: ctx, nodes: nodes, version: chunk.Version{BlockLog: streamLog},
		block: make([]byte, 0, 1<<streamLog), blocks: map[int64]chunk.ID{},
	}
}

// Write implements io.Writer.
func (w *streamWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		took := min(len(b), cap(w.block)-len(w.block))
		w.block = append(w.block, b[:took]...)
		b, n = b[took:], n+took
		if len(w.block) == cap(w.block) {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// flush stores the block.
func (w *streamWriter) flush() error {
	id, err := w.nodes.SaveNode(w.ctx, w.block)
	if err != nil {
		return err
	}
	w.blocks[w.size>>streamLog] = id
	w.size += int64(len(w.block))
	w.block = w.block[:0]
	if len(w.blocks) < streamNodes {
		return nil
	}
	return w.enter()
}

// enter brings the blocks stored since into the tree.
func (w *streamWriter) enter() (err error) {
	w.version, err = chunk.Update(w.ctx, w.nodes, w.version, w.size, w.blocks)
	clear(w.blocks)
	return err
}

// finish makes all that was written durable and returns where it is.
func (w *streamWriter) finish() (chunk.Version, error) {
	if len(w.block) > 0 {
		if err := w.flush(); err != nil {
			return chunk.Version{}, err
		}
	}
	if len(w.blocks) > 0 {
		if err := w.enter(); err != nil {
			return chunk.Version{}, err
		}
	}
	return w.version, w.nodes.chunks.Sync(w.ctx)
}

// streamReader reads what a streamWriter stored, some blocks ahead.
type streamReader struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // what reads from the store
	blocks chan chan streamBlock
	rest   []byte
	left   int64
}

type streamBlock struct {
	plain []byte
	err   error
}

var _ io.ReadCloser = (*streamReader)(nil)

func newStreamReader(ctx context.Context, nodes *sealedNodes, v chunk.Version) *streamReader {
	r := &streamReader{blocks: make(chan chan streamBlock, streamAhead), left: v.Size}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.work.Go(func() { r.fetch(nodes, v) })
	return r
}

// fetch fetches the blocks in order, several at once.
func (r *streamReader) fetch(nodes *sealedNodes, v chunk.Version) {
	defer close(r.blocks)
	for i := range v.Blocks() {
		next := make(chan streamBlock, 1)
		id, err := chunk.Block(r.ctx, nodes, v, i)
		if err == nil && id.IsZero() {
			err = fmt.Errorf("a block is missing: %w", chunk.ErrMalformed)
		}
		if err != nil {
			next <- streamBlock{err: err}
		} else {
			r.work.Go(func() {
				plain, err := nodes.load(r.ctx, id)
				next <- streamBlock{plain, err}
			})
		}
		select {
		case r.blocks <- next:
		case <-r.ctx.Done():
			return
		}
	}
}

// Read implements io.Reader.
func (r *streamReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		next, ok := <-r.blocks
		if !ok {
			return 0, io.ErrUnexpectedEOF
		}
		block := <-next
		if block.err != nil {
			return 0, block.err
		}
		r.rest = block.plain[:min(int64(len(block.plain)), r.left)]
		if len(r.rest) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		r.left -= int64(len(r.rest))
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close ends the fetching.
func (r *streamReader) Close() error {
	r.cancel()
	r.work.Wait()
	return nil
}
