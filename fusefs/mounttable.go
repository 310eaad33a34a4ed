package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Mounted is a mount of any file system.
type Mounted struct {
	Path   string
	Type   string // of the file system
	Source string
	minor  uint32 // of its device, if that is none of a disk's, else 0
}

// MountTable returns what is mounted in this mount namespace; of several at one place the last lies on top. It touches no mount.
func MountTable() ([]Mounted, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountTable(string(text)), nil
}

// parseMountTable reads the format of /proc/self/mountinfo; see proc(5).
func parseMountTable(text string) (table []Mounted) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !ok || len(where) < 5 || len(what) < 2 {
			continue
		}
		m := Mounted{Path: unescape(where[4]), Type: what[0], Source: unescape(what[1])}
		var major, minor uint32
		if _, err := fmt.Sscanf(where[2], "%d:%d", &major, &minor); err == nil && major == 0 {
			m.minor = minor
		}
		table = append(table, m)
	}
	return table
}

// unescape undoes the \ooo escapes of a field of /proc/self/mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountMinor finds the minor device number of the mount at path, or 0.
func mountMinor(path string) (minor uint32) {
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	table, _ := MountTable() // if it cannot be read there is none
	for _, m := range table {
		if m.Path == path {
			minor = m.minor
		}
	}
	return minor
}

// placeOf finds where the mount with a device number is: it may have been moved, and directories above it renamed. It returns "" if it is
// nowhere in this mount namespace. covered says that something else is mounted on top of it.
func placeOf(minor uint32, table []Mounted) (path string, covered bool) {
	for _, m := range table {
		switch {
		case m.minor == minor && (path == "" || covered):
			path, covered = m.Path, false
		case m.Path == path:
			covered = m.minor != minor
		}
	}
	return path, covered
}
