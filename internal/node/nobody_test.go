package node

import (
	"context"
	"errors"

	"github.com/foreverfs/forever/chunk"
)

var errGone = errors.New("nobody has it")

// nobody is a volume without other devices.
type nobody struct{}

var _ fetcher = nobody{}

func (nobody) Fetch(context.Context, chunk.ID) ([]byte, error) { return nil, errGone }
func (nobody) Connected() int                                  { return 0 }
func (nobody) Stored(chunk.ID)                                 {}

func (nobody) FetchAhead(context.Context, chunk.ID) ([]byte, error) { return nil, errGone }
