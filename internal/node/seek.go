package node

import (
	"net"
	"strconv"

	"github.com/foreverfs/forever/internal/lan"
	"github.com/foreverfs/forever/replica"
)

// seekOnLAN has devices of the volume on the local network find each other, if that is wanted, and notices when
// this machine's addresses change, until the node closes.
func (n *Node) seekOnLAN() {
	st, err := n.repl.Status()
	if err != nil {
		return
	}
	port := 0
	if _, text, err := net.SplitHostPort(st.Listen); err == nil {
		port, _ = strconv.Atoi(text)
	}
	var found func([32]byte, string)
	if n.cfg.LAN {
		found = func(device [32]byte, addr string) { n.repl.Found(replica.DeviceID(device), addr) }
	}
	n.wg.Go(func() {
		lan.Run(n.ctx, lan.Config{
			Volume: n.format.Volume, Device: n.repl.Self(), Port: port,
			Known: func() [][32]byte {
				var out [][32]byte
				for _, d := range n.repl.Devices() {
					out = append(out, d.ID)
				}
				return out
			},
			Found:   found,
			Changed: n.repl.NetworkChanged,
			Logger:  n.log.Named("lan"),
		})
	})
}
