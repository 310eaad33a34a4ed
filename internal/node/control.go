package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/replica"
)

const (
	// lowSpace is the free space, in bytes, below which the status warns.
	lowSpace = 512 << 20

	// maxConflicts is how many conflicts the status names.
	maxConflicts = 100

	defaultExpiry = time.Hour
	maxExpiry     = 365 * 24 * time.Hour
)

// controlNode is what commands can ask of a node.
type controlNode struct{ n *Node }

var _ control.Node = controlNode{}

// Status implements control.Node.
func (c controlNode) Status(context.Context) (control.Status, error) {
	n := c.n
	st := control.Status{
		Version: n.cfg.Version, PID: os.Getpid(), Started: n.started.UTC(), DataDir: n.dir.path,
		Volume: hex.EncodeToString(n.format.Volume[:]), Role: n.format.Role, ReadOnly: n.cfg.ReadOnly,
	}
	if m := n.mount.Load(); m != nil {
		st.Mountpoint = m.point
	}
	if n.vol != nil {
		st.Files, st.Directories, st.Bytes = n.vol.Count()
		var err error
		if st.Conflicts.Paths, st.Conflicts.Count, err = n.vol.Conflicts(maxConflicts); err != nil {
			return st, err
		}
	}
	held, err := n.store.Stats()
	if err != nil {
		return st, err
	}
	st.Store.Chunks, st.Store.Bytes = held.Chunks, held.Bytes
	if st.Store.DiskTotal, st.Store.DiskFree, err = n.diskUsage(); err != nil {
		return st, err
	}
	used, err := n.used()
	if err != nil {
		return st, err
	}
	st.Store.Used, st.Store.Quota, st.Store.Full = uint64(used), uint64(n.budget.limit.Load()), n.budget.full()
	if n.cfg.Beside != nil {
		st.Volumes = n.cfg.Beside()
	}
	rs, err := n.repl.Status()
	if err != nil {
		return st, err
	}
	if st.Store.Full {
		st.Problems = append(st.Problems, "there is no room for more of what others write: free some space, or raise the quota (fsmount quota)")
	}
	if st.Store.DiskFree < lowSpace {
		st.Problems = append(st.Problems, "the disk of the data directory is nearly full: free some space, or writing will fail")
	}
	if rs.Clone {
		st.Problems = append(st.Problems, "this device runs elsewhere too, so others refuse to talk to this node: "+
			"one of the two is a copy of the data directory, or a restored backup; end one, "+
			"or join with a new data directory (fsmount invite) to have two devices")
	}
	if rs.Revoked {
		st.Problems = append(st.Problems, "this device was revoked: what it holds stays readable here, what is written here goes nowhere; "+
			"to take part again, join with a new data directory (fsmount invite on another device)")
	}
	if cp := n.newestComplete(); cp != nil {
		st.Checkpoint = &control.Checkpoint{
			ID: hex.EncodeToString(cp.ID[:]), Made: cp.Made.UTC(), Ops: cp.Clock, Bytes: cp.Version.Size, Dropped: n.repl.Base() == cp.ID,
		}
	}
	if n.behind.Load() {
		st.Problems = append(st.Problems, "the others went on without this device while it was away: "+
			"start the node again, and its work is carried over")
	}
	if n.differs.Load() {
		st.Problems = append(st.Problems, "this device came to another tree than others did: nothing is dropped here; "+
			"please report it, with the log")
	}
	st.Listen = rs.Listen
	for _, d := range rs.Devices {
		st.Devices = append(st.Devices, deviceOf(d))
	}
	return st, nil
}

func deviceOf(d replica.DeviceStatus) control.Device {
	return control.Device{
		ID: cipher.DeviceID(d.ID).String(), Name: d.Name, Role: d.Role.String(), Self: d.Self, Connected: d.Connected,
		Addresses: d.Addrs, LastSeen: d.LastSeen, Mount: d.Mount.String(), MountSince: d.MountSince,
		Via: d.Via, Full: d.Full, MissingBatches: d.MissingBatches, MissingChunks: d.MissingChunks, MissingBytes: d.MissingBytes,
	}
}

// Wait implements control.Node. What was written but not yet published is
// published first.
func (c controlNode) Wait(ctx context.Context, req control.WaitRequest, fn func(control.Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.n.waiting, cancel)()
	if c.n.vol != nil {
		if err := c.n.vol.SyncAll(ctx); err != nil {
			return err
		}
	}
	want := req.Replicas
	if want == 0 {
		want = c.n.wanted()
	}
	err := c.n.repl.Wait(ctx, want, func(p replica.Progress) {
		fn(control.Progress{
			Want: p.Want, Have: p.Have, MissingBatches: p.MissingBatches, MissingChunks: p.MissingChunks,
			MissingBytes: p.MissingBytes, Connected: p.Connected, Full: p.Full,
		})
	})
	if full := (*replica.FullError)(nil); errors.As(err, &full) {
		return &fail.Error{Kind: fail.NoSpace, Op: "not enough devices have room: " + strings.Join(full.Names, ", ") + " takes no more",
			Next: "free space there, give the volume a greater quota (fsmount quota), or let another device in"}
	}
	if errors.Is(err, context.Canceled) && c.n.waiting.Err() != nil {
		return &fail.Error{Kind: fail.NotRunning, Op: "the node is ending", Next: "start it again and repeat"}
	}
	return err
}

// wanted is how many other devices the policy wants to hold everything; without
// a word from it, one.
func (n *Node) wanted() int {
	if v := n.repl.Policy()["replicas"]; isCount(v) {
		n, _ := strconv.Atoi(v)
		return n
	}
	return 1
}

// Invite implements control.Node.
func (c controlNode) Invite(_ context.Context, req control.InviteRequest) (string, error) {
	if c.n.format.Role != RoleMember {
		return "", errKeyless()
	}
	if err := c.n.inStanding(); err != nil {
		return "", err
	}
	if c.n.cfg.Listen == "" {
		return "", &fail.Error{Kind: fail.Address, Op: "this node listens nowhere, so nobody could use an invite", Next: "start it with --listen"}
	}
	ttl := req.Expires
	if ttl == 0 {
		ttl = defaultExpiry
	}
	if ttl < 0 || ttl > maxExpiry {
		return "", &fail.Error{Kind: fail.Usage, Op: "--expires must lie between 0 and a year"}
	}
	if err := checkAddresses(req.Addresses); err != nil {
		return "", err
	}
	role := replica.RoleMember
	if req.Replica {
		role = replica.RoleReplica
	}
	inv, err := c.n.repl.CreateInvite(role, ttl)
	if err != nil {
		return "", err
	}
	if len(req.Addresses) > 0 {
		inv.Addrs = req.Addresses
	}
	return cipher.Invite{
		Volume: inv.Volume, Device: cipher.DeviceID(inv.Device), Addrs: inv.Addrs, Secret: inv.Secret,
		Expires: inv.Expires, Role: cipher.Role(inv.Role),
	}.String(), nil
}

// CheckAddress accepts what can be dialed.
func CheckAddress(addr string) error { return checkAddresses([]string{addr}) }

// checkAddresses accepts what a newcomer could dial.
func checkAddresses(list []string) error {
	if len(list) > cipher.MaxAddrs {
		return &fail.Error{Kind: fail.Usage, Op: "more addresses than an invite holds", Next: "give " + strconv.Itoa(cipher.MaxAddrs) + " at most"}
	}
	for _, a := range list {
		host, port, err := net.SplitHostPort(a)
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || len(a) > cipher.MaxAddr {
			return &fail.Error{Kind: fail.Usage, Op: "address " + a + " is not HOST:PORT"}
		}
	}
	return nil
}

// ExportKey implements control.Node.
func (c controlNode) ExportKey(context.Context) (string, error) {
	if c.n.epochs == nil {
		return "", errKeyless()
	}
	if err := c.n.inStanding(); err != nil {
		return "", err
	}
	words, err := cipher.NewPhraseFor(rand.Reader, cipher.VolumeID(c.n.format.Volume))
	if err != nil {
		return "", err
	}
	recovery, err := words.Recovery()
	if err != nil {
		return "", err
	}
	self := replica.DeviceID(c.n.keys.device.ID())
	public, signature, wraps, err := recoveryParts(c.n.format.Volume, self, recovery, c.n.epochs.all())
	if err != nil {
		return "", err
	}
	if err := c.n.repl.SetRecovery(public, signature, wraps); err != nil {
		return "", err
	}
	// What is written from here on the old phrase shall not open.
	if err := c.n.repl.EnsureEpoch(); err != nil {
		return "", err
	}
	c.n.refreshEpochs()
	return string(words), nil
}
