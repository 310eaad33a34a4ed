// Package lan finds the other devices of a volume on the local network, by DNS-SD over mDNS
// (RFC 6763, RFC 6762), and lets them find this one.
//
// What is announced is a port, and a name that only devices of the volume can make sense of: hashes of
// the volume's and the device's ID that change every hour. So the network learns that the
// program runs here, and nothing of which volume, or that two machines have the same.
// What is found is a hint: who is dialed must prove its key.
package lan

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/mdns"
	"github.com/zeebo/blake3"
)

const (
	service = "_forever._tcp"
	domain  = "local."

	// askFirst is how soon the network is asked again after it has changed; the pause doubles up to askMost.
	askFirst = time.Second
	askMost  = 30 * time.Second
	// answerTime is how long answers are waited for.
	answerTime = time.Second
	// pollInterval is how often the interfaces are looked at.
	pollInterval = time.Second
	// maxFound bounds the answers to one question that are taken.
	maxFound = 256

	tagSize = 8
)

// Config says who announces itself, and who is told of others.
type Config struct {
	Volume [16]byte
	Device [32]byte
	Port   int // where it listens; 0: it is not announced, only finds
	// Known are the devices of the volume, by which names are understood.
	Known func() [][32]byte
	// Found is told where a device of the volume listens; the zero device is one that is not known here.
	// Nil: nothing is announced or looked for, only Changed is called.
	Found func(device [32]byte, addr string)
	// Changed is told when this machine's addresses have; may be nil.
	Changed func()
	Logger  hclog.Logger
}

// Run announces and looks until ctx ends. Where there is no multicast it does nothing.
func Run(ctx context.Context, cfg Config) {
	r := &runner{cfg: cfg, quiet: log.New(io.Discard, "", 0)}
	defer r.silence()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	pause, next := askFirst, time.Now()
	for {
		if r.look(time.Now()) {
			pause, next = askFirst, time.Now()
		}
		if !time.Now().Before(next) {
			r.ask(ctx)
			next = time.Now().Add(pause)
			pause = min(2*pause, askMost)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// runner announces on the interfaces as they are.
type runner struct {
	cfg     Config
	quiet   *log.Logger
	state   string // of the interfaces, when they were looked at last
	hour    int64
	ifaces  []net.Interface
	servers []*mdns.Server
}

// link is an interface that can multicast, and its addresses.
type link struct {
	iface net.Interface
	ips   []net.IP
}

func links() []link {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []link
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		l := link{iface: i}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				l.ips = append(l.ips, n.IP)
			}
		}
		if len(l.ips) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// look announces anew if the interfaces have changed, or the hour; it reports whether the interfaces have.
func (r *runner) look(now time.Time) bool {
	list := links()
	state := fmt.Sprint(list)
	hour := now.Unix() / 3600
	if state == r.state && hour == r.hour {
		return false
	}
	changed := state != r.state
	if changed && r.state != "" && r.cfg.Changed != nil {
		r.cfg.Changed()
	}
	r.silence()
	r.state, r.hour, r.ifaces = state, hour, nil
	for _, l := range list {
		r.ifaces = append(r.ifaces, l.iface)
		if err := r.announce(l); err != nil {
			r.cfg.Logger.Debug("cannot announce this device on the local network", "interface", l.iface.Name, "error", err)
		}
	}
	return changed
}

func (r *runner) announce(l link) error {
	if r.cfg.Port == 0 || r.cfg.Found == nil {
		return nil
	}
	name := instance(r.cfg.Volume, r.cfg.Device, r.hour)
	zone, err := mdns.NewMDNSService(name, service, domain, name+"."+domain, r.cfg.Port, l.ips, []string{""})
	if err != nil {
		return err
	}
	s, err := mdns.NewServer(&mdns.Config{Zone: zone, Iface: &l.iface, Logger: r.quiet})
	if err != nil {
		return err
	}
	r.servers = append(r.servers, s)
	return nil
}

// silence ends the announcements.
func (r *runner) silence() {
	for _, s := range r.servers {
		_ = s.Shutdown()
	}
	r.servers = nil
}

// ask asks on all interfaces who is there.
func (r *runner) ask(ctx context.Context) {
	if r.cfg.Found == nil {
		return
	}
	for i := range 2 * len(r.ifaces) {
		iface, six := r.ifaces[i/2], i%2 == 1 // apart: either may be missing
		go func() {
			list, err := askOn(ctx, &iface, six)
			if err != nil && ctx.Err() == nil {
				r.cfg.Logger.Debug("cannot look for devices on the local network", "interface", iface.Name, "error", err)
			}
			r.found(list)
		}()
	}
}

// found passes on what are devices of the volume.
func (r *runner) found(list []answer) {
	names := namesAt(time.Now().Unix()/3600, r.cfg.Volume, r.cfg.Known)
	for _, a := range list {
		if device, ours := names.recognise(a.name); ours && device != r.cfg.Device {
			r.cfg.Found(device, a.addr)
		}
	}
}

// instance is what a device is called in an hour: a tag of the volume and one of the device.
func instance(volume [16]byte, device [32]byte, hour int64) string {
	return tag(hour, volume[:]) + "-" + tag(hour, volume[:], device[:])
}

func tag(hour int64, parts ...[]byte) string {
	h := blake3.NewDeriveKey("forever 1 name on a local network")
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(hour)))
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:tagSize])
}

// names are what the devices of a volume may be called, by a clock that may be an hour off.
type names struct {
	volume  []string                   // what all of them begin with
	devices func() map[string][32]byte // those known, made when the first name begins so
}

func namesAt(hour int64, volume [16]byte, known func() [][32]byte) names {
	hours := []int64{hour - 1, hour, hour + 1}
	var n names
	for _, h := range hours {
		n.volume = append(n.volume, tag(h, volume[:])+"-")
	}
	n.devices = sync.OnceValue(func() map[string][32]byte {
		out := map[string][32]byte{}
		for _, d := range known() {
			for i, h := range hours {
				out[n.volume[i]+tag(h, volume[:], d[:])] = d
			}
		}
		return out
	})
	return n
}

// recognise tells whether a name is that of a device of the volume; the device is zero if it is none of those known.
func (n names) recognise(name string) (device [32]byte, ours bool) {
	if !slices.ContainsFunc(n.volume, func(v string) bool { return strings.HasPrefix(name, v) }) {
		return device, false
	}
	return n.devices()[name], true
}
