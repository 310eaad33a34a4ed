package accept

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// worker does random things on a mount and keeps the books of what it wrote, and of
// what it replaced or removed having seen it. That an operation fails, as things
// are, is part of it.
type worker struct {
	n     *node
	books *books
	rng   *rand.Rand
	steps int
	did   []string
	paths []string // what was there a while ago, relative
}

// step does one thing. Unless calm, contents may arrive on the mount at any time,
// and nothing is done that could replace or remove one unseen.
func (w *worker) step(calm bool) {
	w.steps++
	if w.steps%20 == 1 {
		w.paths = w.list()
	}
	harmless := []func(){w.create, w.create, w.mkdir, w.mkdir, w.moveDir, w.moveDir, w.link, w.symlink, w.chmod, w.rmdir, w.exchange, w.move}
	bold := []func(){w.edit, w.edit, w.edit, w.edit, w.save, w.save, w.save, w.remove, w.remove, w.replace}
	kinds := harmless
	if calm {
		kinds = slices.Concat(harmless, bold)
	}
	kinds[w.rng.IntN(len(kinds))]()
}

func (w *worker) note(what, path, other string, err error) {
	w.did = append(w.did, fmt.Sprintf("%d %s %q %q: %v", w.steps, what, path, other, err))
}

// list returns every path of the mount, conflict files too.
func (w *worker) list() (paths []string) {
	_ = filepath.WalkDir(w.n.mnt, func(path string, _ fs.DirEntry, err error) error {
		if rel, rerr := filepath.Rel(w.n.mnt, path); err == nil && rerr == nil && rel != "." {
			paths = append(paths, rel)
		}
		return nil
	})
	return paths
}

var (
	sharedDirs  = []string{"", "p", "q", "p/r", "q/p", "p/r/q"}
	sharedNames = []string{"a.txt", "b.txt", "c", ".d", "e.tar.gz"}
)

// path returns a shared name, or now and then one that is there.
func (w *worker) path() string {
	if len(w.paths) > 0 && w.rng.IntN(3) == 0 {
		return w.paths[w.rng.IntN(len(w.paths))]
	}
	return filepath.Join(sharedDirs[w.rng.IntN(len(sharedDirs))], sharedNames[w.rng.IntN(len(sharedNames))])
}

// file returns a path that is no directory, mostly one that is there.
func (w *worker) file() string {
	for range 10 {
		path := w.path()
		if info, err := os.Lstat(w.abs(path)); err == nil && !info.IsDir() {
			return path
		}
	}
	return w.path()
}

func (w *worker) dir() string {
	return filepath.Join(sharedDirs[w.rng.IntN(len(sharedDirs))], []string{"p", "q", "r"}[w.rng.IntN(3)])
}

func (w *worker) abs(path string) string { return filepath.Join(w.n.mnt, path) }

// content returns one that nobody has written yet: small, or of several blocks.
func (w *worker) content() []byte {
	size := []int{0, 100, 5000, 70_000, 200_000}[min(w.rng.IntN(8), 4)]
	if w.rng.IntN(4) > 0 {
		size = 0
	}
	return []byte(fmt.Sprintf("%s %d %d\n", w.who(), w.steps, w.rng.Int64()) + strings.Repeat("x", size))
}

func (w *worker) who() string { return filepath.Base(w.n.mnt) }

func (w *worker) wrote(content []byte, path string) {
	w.books.wrote(contentKey(content), fmt.Sprintf("step %d of %s, at %q", w.steps, w.who(), path))
}

// create makes a file that is not there.
func (w *worker) create() {
	path, content := w.path(), w.content()
	err := w.put(path, content)
	w.note("create "+contentKey(content)[:8], path, "", err)
}

// put makes a file that is not there, and its directory if need be.
func (w *worker) put(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(w.abs(path)), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(w.abs(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		w.wrote(content, path)
	}
	return err
}

// edit replaces the content of a file, in place, or appends to it.
func (w *worker) edit() {
	path, content := w.file(), w.content()
	old, err := w.editFile(path, &content)
	w.note("edit "+contentKey(content)[:8], path, short(old), err)
	if errors.Is(err, fs.ErrNotExist) {
		w.create()
	}
}

// editFile makes content that of a file; when it appends, content becomes the whole.
// It returns the key of the content that the file had.
func (w *worker) editFile(path string, content *[]byte) (string, error) {
	if info, err := os.Lstat(w.abs(path)); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fs.ErrInvalid)
	}
	f, err := os.OpenFile(w.abs(path), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	old, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	if w.rng.IntN(4) == 0 {
		*content = append(old[:len(old):len(old)], *content...)
	}
	if _, err := f.WriteAt(*content, 0); err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(int64(len(*content))), f.Close()); err != nil {
		return "", err
	}
	w.books.drop(contentKey(old))
	w.wrote(*content, path)
	return contentKey(old), nil
}

// save writes a temporary file beside a file and renames it over that.
func (w *worker) save() {
	path, content := w.path(), w.content()
	temp := path + "~"
	if err := w.put(temp, content); err != nil {
		w.note("save: put "+contentKey(content)[:8], temp, "", err)
		return
	}
	old := keyOf(w.abs(path))
	err := os.Rename(w.abs(temp), w.abs(path))
	if err == nil {
		w.books.drop(old)
	}
	w.note("save "+contentKey(content)[:8], path, short(old), err)
}

// remove removes a file, with whatever it has become.
func (w *worker) remove() {
	path := w.file()
	old := keyOf(w.abs(path))
	err := unix.Unlink(w.abs(path))
	if err == nil {
		w.books.drop(old)
	}
	w.note("remove", path, short(old), err)
}

// replace renames a file over another.
func (w *worker) replace() {
	from, to := w.file(), w.path()
	if info, err := os.Lstat(w.abs(from)); err != nil || info.IsDir() {
		return
	}
	old, same := keyOf(w.abs(to)), w.same(from, to)
	err := unix.Rename(w.abs(from), w.abs(to))
	if err == nil && !same {
		w.books.drop(old)
	}
	w.note("rename over "+short(old), from, to, err)
}

// same reports whether two paths are one file, which a rename leaves alone.
func (w *worker) same(one, other string) bool {
	a, errA := os.Lstat(w.abs(one))
	b, errB := os.Lstat(w.abs(other))
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func (w *worker) renameat2(what, from, to string, flags uint) {
	err := unix.Renameat2(unix.AT_FDCWD, w.abs(from), unix.AT_FDCWD, w.abs(to), flags)
	w.note(what, from, to, err)
}

func (w *worker) move()     { w.renameat2("move", w.file(), w.path(), unix.RENAME_NOREPLACE) }
func (w *worker) exchange() { w.renameat2("exchange", w.file(), w.file(), unix.RENAME_EXCHANGE) }

// moveDir moves a directory, into another or over an empty one.
func (w *worker) moveDir() {
	from, to := w.dir(), w.dir()
	if info, err := os.Lstat(w.abs(from)); err != nil || !info.IsDir() {
		return
	}
	err := unix.Rename(w.abs(from)+"/", w.abs(to))
	w.note("move directory", from, to, err)
}

func (w *worker) mkdir() {
	path := w.dir()
	w.note("mkdir", path, "", os.Mkdir(w.abs(path), 0o755))
}

func (w *worker) rmdir() {
	path := w.dir()
	w.note("rmdir", path, "", unix.Rmdir(w.abs(path)))
}

func (w *worker) link() {
	old, path := w.file(), w.path()
	w.note("link", old, path, os.Link(w.abs(old), w.abs(path)))
}

func (w *worker) symlink() {
	path := w.path()
	target := fmt.Sprintf("nowhere/%s/%d", w.who(), w.steps)
	err := os.Symlink(target, w.abs(path))
	if err == nil {
		w.books.wrote(targetKey(target), fmt.Sprintf("step %d of %s, at %q", w.steps, w.who(), path))
	}
	w.note("symlink", path, target, err)
}

func (w *worker) chmod() {
	path := w.path()
	if info, err := os.Lstat(w.abs(path)); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return
	}
	w.note("chmod", path, "", os.Chmod(w.abs(path), 0o600+fs.FileMode(w.rng.IntN(0o200))))
}

func short(key string) string { return key[:min(8, len(key))] }
