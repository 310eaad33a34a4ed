package node

import (
	"context"
	"errors"
	"strings"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/replica"
)

// minIDPrefix is how much of a device's ID must be given at least, in characters.
const minIDPrefix = 8

// deviceCalled finds a device by its name, or by the beginning of its ID.
func (n *Node) deviceCalled(name string) (replica.Device, error) {
	var named []replica.Device
	for _, d := range n.repl.Devices() {
		id := cipher.DeviceID(d.ID).String()
		if d.Name == name || len(name) >= minIDPrefix && strings.HasPrefix(id, name) {
			named = append(named, d)
		}
	}
	switch len(named) {
	case 0:
		return replica.Device{}, &fail.Error{Kind: fail.Usage, Op: "there is no device " + name, Next: "see fsmount devices list"}
	case 1:
		return named[0], nil
	}
	return replica.Device{}, &fail.Error{Kind: fail.Usage, Op: "several devices are called " + name,
		Next: "give the beginning of its ID: fsmount devices list --json"}
}

// RenameDevice implements control.Node.
func (c controlNode) RenameDevice(_ context.Context, req control.DeviceRequest) error {
	d, err := c.n.deviceCalled(req.Name)
	if err != nil {
		return err
	}
	if c.n.format.Role != RoleMember && d.ID != c.n.repl.Self() {
		return errKeyless()
	}
	if err := c.n.inStanding(); err != nil {
		return err
	}
	if replica.CheckName(req.NewName) != nil {
		return &fail.Error{Kind: fail.Usage, Op: "a device cannot be called that",
			Next: "take 1 to 64 bytes of printable characters, without a slash and without spaces at the ends"}
	}
	for _, o := range c.n.repl.Devices() {
		if o.Name == req.NewName && o.ID != d.ID {
			return &fail.Error{Kind: fail.Usage, Op: "another device is called " + req.NewName, Next: "choose another name"}
		}
	}
	return standingError(c.n.repl.Rename(d.ID, req.NewName))
}

// RevokeDevice implements control.Node. What is published from here on is
// sealed under a new key.
func (c controlNode) RevokeDevice(_ context.Context, req control.DeviceRequest) error {
	if c.n.format.Role != RoleMember {
		return errKeyless()
	}
	d, err := c.n.deviceCalled(req.Name)
	if err == nil {
		err = c.n.inStanding()
	}
	if err != nil {
		return err
	}
	if len(req.Reason) > 1024 {
		return &fail.Error{Kind: fail.Usage, Op: "the reason is longer than 1024 bytes"}
	}
	err = c.n.repl.Revoke(d.ID, req.Reason)
	c.n.refreshEpochs()
	if errors.Is(err, replica.ErrSelf) {
		return &fail.Error{Kind: fail.Usage, Op: "a device cannot revoke itself", Next: "revoke it on another device"}
	}
	return standingError(err)
}

// inStanding refuses what a device could only say to itself, if all that it can reach say that it is out.
func (n *Node) inStanding() error {
	st, err := n.repl.Status()
	if err == nil && st.Revoked && st.Connected == 0 {
		return standingError(replica.ErrRevoked)
	}
	return err
}

// standingError tells a device that is out why it has no word any more.
func standingError(err error) error {
	if errors.Is(err, replica.ErrRevoked) || errors.Is(err, replica.ErrInvalid) {
		return &fail.Error{Kind: fail.Refused, Op: "this device has no right to that any more", Err: words(err), Next: "see fsmount status"}
	}
	return err
}
