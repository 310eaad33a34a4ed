package node

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// FormatVersion is the version of the data directory this program writes, and
// the newest it reads; it upgrades older ones.
const FormatVersion = 2

// The roles a data directory can have.
const (
	RoleMember  = "member"
	RoleReplica = "replica"
)

const (
	formatName  = "format"
	formatMagic = "forever data directory"
	formatMax   = 4096 // bytes; a greater file is none of ours
)

// format is the content of DIR/format: what the directory is, written last when
// it is created, so that its presence says the rest is whole.
type format struct {
	Version  int
	Creating bool // the creation has begun and not ended: nothing in here counts
	Volume   [16]byte
	Role     string
}

// errNewerFormat says that a later program wrote the directory.
var errNewerFormat = errors.New("newer format")

// marshal returns the text of the file.
func (f format) marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nversion %d\n", formatMagic, f.Version)
	if f.Creating {
		b.WriteString("creating\n")
		return b.Bytes()
	}
	fmt.Fprintf(&b, "volume %x\nrole %s\n", f.Volume, f.Role)
	return b.Bytes()
}

// parseFormat reads the text of a format file. Of a newer version it reads only
// the version.
func parseFormat(text []byte) (format, error) {
	if len(text) > formatMax {
		return format{}, fmt.Errorf("%d bytes is too long", len(text))
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	if !lines.Scan() || lines.Text() != formatMagic {
		return format{}, errors.New("its first line is not ours")
	}
	f := format{}
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if err := f.set(key, value); err != nil {
			return f, err
		}
	}
	if err := lines.Err(); err != nil {
		return f, err
	}
	return f, f.check()
}

func (f *format) set(key, value string) error {
	switch {
	case key == "version":
		v, err := strconv.ParseUint(value, 10, 31)
		if err != nil || v == 0 {
			return fmt.Errorf("version %q is no number", value)
		}
		f.Version = int(v)
		if f.Version > FormatVersion {
			return fmt.Errorf("%w: version %d, this program knows %d", errNewerFormat, v, FormatVersion)
		}
	case f.Version == 0:
		return errors.New("the version is missing")
	case key == "creating" && value == "":
		f.Creating = true
	case key == "volume":
		id, err := hex.DecodeString(value)
		if err != nil || len(id) != len(f.Volume) {
			return fmt.Errorf("volume %q is no volume ID", value)
		}
		copy(f.Volume[:], id)
	case key == "role" && (value == RoleMember || value == RoleReplica):
		f.Role = value
	default:
		return fmt.Errorf("unknown line %q", key)
	}
	return nil
}

func (f *format) check() error {
	switch {
	case f.Version == 0:
		return errors.New("the version is missing")
	case f.Creating:
		return nil
	case f.Role == "" || f.Volume == [16]byte{}:
		return errors.New("volume or role is missing")
	}
	return nil
}

// readFormat reads DIR/format; os.ErrNotExist if there is none.
func readFormat(dir string) (format, error) {
	file, err := os.Open(filepath.Join(dir, formatName))
	if err != nil {
		return format{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, formatMax+1))
	if err != nil {
		return format{}, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	return parseFormat(text)
}

// writeFormat replaces DIR/format; it is durable on return.
func writeFormat(dir string, f format) error {
	return writeFile(dir, formatName, f.marshal())
}

// writeFile replaces a small file of the data directory by a whole new one,
// readable by its owner only, and makes it durable.
func writeFile(dir, name string, data []byte) error {
	tmp := filepath.Join(dir, name+".new")
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", tmp, err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDirs is os.MkdirAll for directories of the owner's only, whose names are durable on return.
func makeDirs(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err := makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		return syncDir(filepath.Dir(path))
	}
	return os.MkdirAll(path, 0o700) // it is there, or that says why it cannot be
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
