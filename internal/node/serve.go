package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/transport"
)

const (
	// requestPatience is how long requests under way may still take when the node ends.
	requestPatience = 5 * time.Second
	// settle is how long a connection may take from the socket to the server.
	settle = 10 * time.Millisecond
)

// serveControl opens the control socket. Requests that only wait end with
// stopWaiting, the others are given requestPatience.
func (n *Node) serveControl() error {
	l, err := control.Listen(n.dir.path)
	if err != nil {
		return err
	}
	var tree control.Files = keylessFiles{}
	if n.vol != nil {
		tree = files{v: n.vol, notifier: n.notifier}
	}
	n.server = &http.Server{
		Handler:           n.counted(control.Handler(controlNode{n}, tree)),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          n.log.Named("control").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
	}
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := n.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.end(fmt.Errorf("serve control socket: %w", err))
		}
	}()
	return nil
}

// counted keeps count of the requests under way.
func (n *Node) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.requests.Add(1)
		defer n.requests.Add(-1)
		h.ServeHTTP(w, r)
	})
}

// drainPoll is how often Drain looks whether the node is still used.
const drainPoll = 20 * time.Millisecond

// Drain returns when nobody uses the control socket any more, which is closed then, or with ctx's error. Only Close may follow.
func (n *Node) Drain(ctx context.Context) error {
	for n.requests.Load() > 0 {
		select {
		case <-time.After(drainPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return n.shutControl(ctx)
}

func (n *Node) closeControl() error {
	n.stopWaiting()
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	err := n.shutControl(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		n.log.Warn("requests on the control socket were cut off")
		err = n.server.Close()
	}
	return err
}

// shutControl ends the control socket when no request is under way.
func (n *Node) shutControl(ctx context.Context) error {
	if n.server == nil {
		return nil
	}
	// No new callers; those that have just connected are still let in.
	gone := os.Remove(n.dir.join(control.SocketName))
	if errors.Is(gone, os.ErrNotExist) {
		gone = nil
	} else {
		time.Sleep(settle)
	}
	return errors.Join(gone, n.server.Shutdown(ctx))
}

// listenError tells why the node cannot listen.
func listenError(addr string, err error) error {
	e := &fail.Error{Kind: fail.Address, Op: "listen on " + addr, Err: cause(err)}
	e.Next = "choose another address with --listen, for instance --listen :0"
	return e
}

// dialCause shortens the tale of a failed dial to what each address said.
func dialCause(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, transport.ErrNoPeer):
		return errors.New("what answers is no forever node")
	}
	return cause(err)
}

// cause drops the operation and address that the net package put before it.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err
	}
	return err
}
