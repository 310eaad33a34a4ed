package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/google/pprof/profile"
)

// layers are what a node's time is divided among, in the order of the table.
var layers = []string{"requests", "dispatch", "files", "tree", "state", "store", "sealing", "devices", "disk", "memory", "scheduler", "other"}

// layerOf says which layer a module or package belongs to; the longest prefix counts.
// What is not here, the standard library above all, belongs to its caller.
var layerOf = map[string]string{
	"bazil.org/fuse":                    "dispatch",
	"github.com/foreverfs/forever/":     "devices",
	ourPath + "fusefs":                  "dispatch",
	ourPath + "volume":                  "files",
	ourPath + "chunk":                   "files",
	ourPath + "namespace":               "tree",
	ourPath + "internal/kv":             "state",
	ourPath + "internal/sealedfs":       "state",
	"github.com/cockroachdb/":           "state",
	"github.com/tidwall/btree":          "state",
	ourPath + "casstore":                "store",
	ourPath + "internal/readaround":     "store",
	ourPath + "internal/writefs":        "store",
	ourPath + "cipher":                  "sealing",
	ourPath + "internal/hashtree":       "sealing",
	"github.com/klauspost/compress":     "sealing",
	"github.com/zeebo/blake3":           "sealing",
	"lukechampine.com/blake3":           "sealing",
	"github.com/foreverfs/forever/cmd/": "other",
}

const ourPath = "github.com/foreverfs/forever/"

// layer returns where a sample belongs. stack holds the names of its functions, innermost first. A system call that reads
// or answers requests counts as "requests", any other as "disk"; what the runtime does to get
// or collect memory as "memory", whoever asked for it.
func layer(stack []string) string {
	call, memory := false, false
	for _, fn := range stack {
		switch {
		case strings.HasPrefix(fn, "internal/runtime/syscall") || strings.HasPrefix(fn, "syscall.") || strings.HasPrefix(fn, "golang.org/x/sys/unix."):
			call = true
		case strings.HasPrefix(fn, "runtime.mallocgc") || strings.HasPrefix(fn, "runtime.growslice") || strings.HasPrefix(fn, "runtime.gc") || strings.HasPrefix(fn, "runtime.bg"):
			memory = true
		}
		if memory {
			return "memory"
		}
		if of := known(fn); of != "" {
			switch {
			case call && of == "dispatch":
				return "requests"
			case call:
				return "disk"
			}
			return of
		}
	}
	if call {
		return "disk"
	}
	for _, fn := range stack {
		if !strings.HasPrefix(fn, "runtime.") {
			return "other"
		}
	}
	return "scheduler"
}

// known returns the layer of a function by the longest prefix of its name, "" if it has none of its own.
func known(fn string) (of string) {
	longest := 0
	for prefix, l := range layerOf {
		if len(prefix) > longest && strings.HasPrefix(fn, prefix) {
			longest, of = len(prefix), l
		}
	}
	return of
}

// divide adds up the seconds of a profile by layer.
func divide(p *profile.Profile) map[string]float64 {
	at := len(p.SampleType) - 1 // nanoseconds; before them are counts
	sum := map[string]float64{}
	for _, s := range p.Sample {
		var stack []string
		for _, loc := range s.Location {
			for _, line := range loc.Line {
				if line.Function != nil {
					stack = append(stack, line.Function.Name)
				}
			}
		}
		sum[layer(stack)] += float64(s.Value[at]) / 1e9
	}
	return sum
}

// profiler takes profiles of a node one after the other.
type profiler struct {
	addr string
	stop chan struct{}
	wg   sync.WaitGroup
	sum  map[string]float64
	err  error
}

// startProfiler begins to profile the node that serves profiles at addr.
func startProfiler(ctx context.Context, addr string) *profiler {
	p := &profiler{addr: addr, stop: make(chan struct{}), sum: map[string]float64{}}
	p.wg.Go(func() {
		for {
			if p.err = p.second(ctx); p.err != nil {
				return
			}
			select {
			case <-p.stop:
				return
			default:
			}
		}
	})
	return p
}

// second profiles the node for a second.
func (p *profiler) second(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/debug/pprof/profile?seconds=1", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile the node: %w", err)
	}
	defer resp.Body.Close()
	prof, err := profile.Parse(io.LimitReader(resp.Body, 64*mib))
	if err != nil {
		return fmt.Errorf("profile the node: %w", err)
	}
	for l, s := range divide(prof) {
		p.sum[l] += s
	}
	return nil
}

// end returns what was found, in seconds, once the profile under way is done.
func (p *profiler) end() (map[string]float64, error) {
	close(p.stop)
	p.wg.Wait()
	return p.sum, p.err
}

// freeAddress returns a local address that nobody listens at.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// shares prints in which layers the node's time goes.
func (r *report) shares(w io.Writer) {
	fmt.Fprintf(w, "\n| %% of the node's time | %s |\n|---|%s\n", strings.Join(layers, " | "), strings.Repeat("---:|", len(layers)))
	for _, row := range r.Rows {
		sum, all := map[string]float64{}, 0.0
		for _, s := range row.Samples[ours] {
			for l, v := range s.Layers {
				sum[l] += v
				all += v
			}
		}
		if all == 0 {
			continue
		}
		cells := []string{row.Title}
		for _, l := range layers {
			cells = append(cells, fmt.Sprintf("%.0f", 100*sum[l]/all))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}
