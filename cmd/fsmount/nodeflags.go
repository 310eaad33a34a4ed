package main

import (
	"io"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// nodeOptions are the flags that mounting and serving share.
type nodeOptions struct {
	listen   string
	join     string
	peers    []string
	lan      bool
	sync     int
	readOnly bool
	promise  string
	locks    string
	upload   rateValue
	download rateValue
	daemon   bool
	logLevel string
	logJSON  bool
	readyFD  int

	flags *pflag.FlagSet // all of the command
}

// mountOptions are what only a mount needs; point is empty for serve.
type mountOptions struct {
	point      string
	allowOther bool
	options    []string // of mount(8), for the kernel
	idlePoll   node.IdlePolling
}

func (o *nodeOptions) addFlags(f *pflag.FlagSet) {
	o.flags = f
	f.StringVar(&o.listen, "listen", ":4747", "`HOST:PORT` where peers reach this node; port 0 picks a free one")
	f.StringVar(&o.join, "join", "", "first use only: join the volume of `INVITE` instead of creating one")
	f.StringArrayVar(&o.peers, "peer", nil, "`HOST:PORT` at which some device of the volume may answer, whichever it is; may be repeated")
	f.BoolVar(&o.lan, "lan", true, "find, and be found by, devices of the volume on the local network")
	f.BoolVar(&o.readOnly, "read-only", false, "change nothing from this mount; what others change arrives")
	f.StringVar(&o.promise, "consistency", closeToOpen, "`MODE`: close-to-open (what a call changed, others see once it returns) or eventual (wait for nobody)")
	f.StringVar(&o.locks, "locks", clusterLocks, "`MODE`: cluster (file locks count on all connected mounts) or local (on this one only)")
	f.IntVar(&o.sync, "sync-replicas", 0, "have fsync wait until `N` other devices hold the data, and fail after 30 s")
	f.Var(&o.upload, "upload-limit", "send no more than `RATE` bytes per second to other devices, all together: 2MB, 500K (default no limit)")
	f.Var(&o.download, "download-limit", "take no more than `RATE` bytes per second from them")
	f.BoolVar(&o.daemon, "daemon", false, "return as soon as the node is usable, and log to DIR/log")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.BoolVar(&o.logJSON, "log-json", false, "log JSON lines")
	f.IntVar(&o.readyFD, "ready-fd", 0, "descriptor a daemon reports on")
	// Between a --daemon and its child only.
	_ = f.MarkHidden("ready-fd")
}

// given returns the flags that were given, as a daemon's child needs them.
func (o *nodeOptions) given() []string {
	var args []string
	o.flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "daemon", "join", "data", "volume", "ready-fd":
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			args = append(args, "--"+f.Name+"="+v)
		}
	})
	return args
}

// logger returns the node's logger.
func (o *nodeOptions) logger(w io.Writer) (hclog.Logger, error) {
	level := hclog.LevelFromString(o.logLevel)
	if level == hclog.NoLevel {
		return nil, &fail.Error{Kind: fail.Usage, Op: "log level " + o.logLevel + " is unknown",
			Next: "use trace, debug, info, warn or error"}
	}
	return hclog.New(&hclog.LoggerOptions{Name: "forever", Level: level, Output: w, JSONFormat: o.logJSON}), nil
}

// What --consistency takes.
const (
	closeToOpen = "close-to-open"
	eventual    = "eventual"
)

// What --locks takes.
const (
	clusterLocks = "cluster"
	localLocks   = "local"
)

// check refuses values that no flag takes.
func (o *nodeOptions) check() error {
	if o.promise != closeToOpen && o.promise != eventual {
		return &fail.Error{Kind: fail.Usage, Op: "consistency " + o.promise + " is unknown",
			Next: "use " + closeToOpen + " or " + eventual}
	}
	if o.sync < 0 {
		return &fail.Error{Kind: fail.Usage, Op: "--sync-replicas cannot be negative"}
	}
	for _, addr := range o.peers {
		if err := node.CheckAddress(addr); err != nil {
			return err
		}
	}
	if o.locks != clusterLocks && o.locks != localLocks {
		return &fail.Error{Kind: fail.Usage, Op: "locks " + o.locks + " is unknown",
			Next: "use " + clusterLocks + " or " + localLocks}
	}
	return nil
}

// config returns the configuration of the node in dir.
func (o *nodeOptions) config(dir string, log hclog.Logger) node.Config {
	return node.Config{
		Dir: dir, Listen: o.listen, Peers: o.peers, LAN: o.lan, SyncReplicas: o.sync, ReadOnly: o.readOnly, Eventual: o.promise == eventual,
		LocalLocks: o.locks == localLocks, Logger: log,
		UploadLimit: int64(o.upload), DownloadLimit: int64(o.download),
		Passphrase: passphrase, Version: versionString(), Now: wallClock(), Checkpoints: checkpoints(),
	}
}
