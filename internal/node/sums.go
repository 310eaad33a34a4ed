package node

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/internal/fail"
)

// A node that ends in order leaves the checksums of its files behind, so that the next start and
// fsmount scrub notice what changed on the disk meanwhile. Packs are not among them: each
// chunk in there is checked by its name. Tables of the state never change once they are
// written, so their sums stay good while the node runs, and after a crash.

const (
	sumsName  = "sums"
	sumsMagic = "forever checksums 1"
	// rebuildMark has the store make the index of the chunks anew.
	rebuildMark = chunksName + "/rebuild"
)

// sum is the checksum of one file.
type sum struct {
	size int64
	hash [32]byte
}

// sums are checksums by name, with slashes, inside the data directory.
type sums map[string]sum

// ofIndex reports whether a file is of the index of the chunks.
func ofIndex(name string) bool { return strings.HasPrefix(name, chunksName+"/index/") }

// summed reports whether a file is one that sums has, and whether it never changes.
func summed(name string) (is, fixed bool) {
	switch {
	case name == formatName, name == keyName:
		return true, false
	case strings.HasPrefix(name, stateName+"/"), ofIndex(name):
		return filepath.Base(name) != "LOCK", strings.HasSuffix(name, ".sst")
	}
	return false, false
}

// sumFile reads a file.
func sumFile(path string) (sum, error) {
	f, err := os.Open(path)
	if err != nil {
		return sum{}, err
	}
	defer f.Close()
	h := blake3.New()
	n, err := io.Copy(h, f)
	return sum{n, [32]byte(h.Sum(nil))}, err
}

// eachSummed calls fn for the files in the data directory that sums has.
func (d *dataDir) eachSummed(fn func(name string, fixed bool) error) error {
	// With a slash, else a link to the directory is not followed.
	return filepath.WalkDir(d.path+"/", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if e.IsDir() {
			if name == volumesName || name == scratchName {
				return filepath.SkipDir
			}
			return nil
		}
		is, fixed := summed(name)
		if !is || !e.Type().IsRegular() {
			return nil
		}
		return fn(name, fixed)
	})
}

// writeSums leaves checksums behind: of all files, or of those that never change. What known has of those
// is not read again.
func (d *dataDir) writeSums(known sums, all bool) error {
	out := sums{}
	err := d.eachSummed(func(name string, fixed bool) error {
		if !fixed && !all {
			return nil
		}
		if s, ok := known[name]; ok && fixed {
			out[name] = s
			return nil
		}
		if !all {
			return nil
		}
		s, err := sumFile(d.join(name))
		out[name] = s
		return err
	})
	if err != nil {
		return fmt.Errorf("sum files up: %w", err)
	}
	return d.inReserve(func() error { return writeFile(d.path, sumsName, out.marshal()) })
}

func (s sums) marshal() []byte {
	var b strings.Builder
	fmt.Fprintln(&b, sumsMagic)
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%x %d %s\n", s[name].hash, s[name].size, name)
	}
	end := blake3.Sum256([]byte(b.String()))
	fmt.Fprintf(&b, "end %x\n", end)
	return []byte(b.String())
}

// EndedInOrder reports whether the node that ran in dir last could flush everything and close it; true also if that
// cannot be known.
func EndedInOrder(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil {
		return true
	}
	known, err := parseSums(string(text))
	_, whole := known[formatName] // while it runs there are only the sums of what does not change
	return err != nil || whole
}

// errSums says that the file of checksums is damaged itself.
var errSums = errors.New("the file of checksums is damaged")

func parseSums(text string) (sums, error) {
	body, end, ok := strings.Cut(text, "\nend ")
	hash := blake3.Sum256([]byte(body + "\n"))
	if !ok || end != hex.EncodeToString(hash[:])+"\n" {
		return nil, errSums
	}
	out := sums{}
	lines := bufio.NewScanner(strings.NewReader(body))
	for first := true; lines.Scan(); first = false {
		if first {
			if lines.Text() != sumsMagic {
				return nil, errSums
			}
			continue
		}
		f := strings.SplitN(lines.Text(), " ", 3)
		if len(f) != 3 {
			return nil, errSums
		}
		h, err := hex.DecodeString(f[0])
		size, serr := strconv.ParseInt(f[1], 10, 64)
		if err != nil || serr != nil || len(h) != 32 {
			return nil, errSums
		}
		out[f[2]] = sum{size, [32]byte(h)}
	}
	return out, lines.Err()
}

// checkSums compares the files that may change while a node runs with what the last one left behind, and
// returns what is known of those that do not. It fails if something is not as it was left that
// no other copy on this disk can replace; what can be made anew is named in warnings.
func (d *dataDir) checkSums() (known sums, warnings []string, err error) {
	text, err := os.ReadFile(d.join(sumsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil {
		known, err = parseSums(string(text))
	}
	if errors.Is(err, errSums) {
		return nil, []string{sumsName}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read checksums: %w", err)
	}
	if _, err := os.Stat(d.join(rebuildMark)); err == nil { // the last start may have begun to make it anew
		known.forgetIndex()
	}
	for name, want := range known {
		_, fixed := summed(name)
		if fixed { // tables are the scrub's business
			continue
		}
		got, err := sumFile(d.join(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return known, warnings, fmt.Errorf("read %s: %w", name, err)
		}
		switch {
		case err == nil && got == want:
		case replaceable(name):
			warnings = append(warnings, name)
		default:
			return known, warnings, damagedFile(d, name)
		}
	}
	return known, warnings, nil
}

// compareSums notices what has changed since the node ended last, and has made anew what can be.
func (n *Node) compareSums() error {
	known, warnings, err := n.dir.checkSums()
	if err != nil {
		return err
	}
	if n.cfg.Verify {
		tables, _, err := n.dir.damagedTables(n.ctx, known)
		if err != nil {
			return err
		}
		for _, name := range tables {
			if ofIndex(name) {
				warnings = append(warnings, name)
			} else {
				n.damaged = append(n.damaged, name)
			}
		}
	}
	for _, name := range warnings {
		n.log.Warn("a file is not as it was left; what it said is made anew", "file", name)
		n.noticed = append(n.noticed, "file "+n.dir.join(name)+" was not as it was left when the node started; what it said was made anew")
		if strings.HasPrefix(name, chunksName+"/") {
			if err := n.dir.rebuildIndex(); err != nil {
				return err
			}
			known.forgetIndex()
		}
	}
	n.sums = known
	return nil
}

// forgetIndex forgets the sums of the index of the chunks.
func (s sums) forgetIndex() {
	maps.DeleteFunc(s, func(name string, _ sum) bool { return ofIndex(name) })
}

// forgetIndexSums forgets the sums of an index that is about to be made anew: its files will have the names of others.
func (n *Node) forgetIndexSums() error {
	n.sums.forgetIndex()
	return n.dir.writeSums(n.sums, false)
}

// replaceable reports whether a file can be done without: what it says is made anew.
func replaceable(name string) bool {
	return ofIndex(name) || strings.HasPrefix(filepath.Base(name), "OPTIONS-")
}

func damagedFile(d *dataDir, name string) error {
	return &fail.Error{Kind: fail.Damaged, Op: "file " + d.join(name) + " is not as this node left it: the disk has damaged it, or something has changed it",
		Next: restoreOrJoin}
}

// restoreOrJoin is what is left to do when a data directory is damaged beyond mending.
const restoreOrJoin = "restore the data directory from a copy, or let this device join anew with another --data"

// rebuildIndex has the next start make the index of the chunks anew.
func (d *dataDir) rebuildIndex() error {
	err := d.inReserve(func() error { return writeFile(d.join(chunksName), filepath.Base(rebuildMark), nil) })
	if errors.Is(err, os.ErrNotExist) { // which the next start must not take for a store that is to be made
		return &fail.Error{Kind: fail.Damaged, Op: "directory " + d.join(chunksName) + " is missing", Next: restoreOrJoin}
	}
	return err
}

// damagedTables returns the tables that are not as they were written.
func (d *dataDir) damagedTables(ctx context.Context, known sums) (damaged []string, checked int, err error) {
	err = d.eachSummed(func(name string, fixed bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		want, ok := known[name]
		if !fixed || !ok {
			return nil
		}
		got, err := sumFile(d.join(name))
		switch {
		case errors.Is(err, os.ErrNotExist): // compacted meanwhile
			return nil
		case err != nil:
			return err
		case got != want:
			damaged = append(damaged, name)
		}
		checked++
		return nil
	})
	return damaged, checked, err
}
