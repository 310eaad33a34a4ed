package replica

import (
	"crypto/rand"
	"fmt"

	"github.com/foreverfs/forever/transport"
)

// codec frames all messages between peers.
var codec transport.Codec = transport.Protobuf{}

func readRandom(b []byte) (int, error) {
	n, err := rand.Read(b)
	if err != nil {
		return n, fmt.Errorf("read random bytes: %w", err)
	}
	return n, nil
}
