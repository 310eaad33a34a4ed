package replica

import "github.com/foreverfs/forever/transport"

// codec frames all messages between peers.
var codec transport.Codec = transport.Protobuf{}
