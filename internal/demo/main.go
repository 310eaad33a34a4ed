// Command demo plays two machines on this one: it mounts a volume twice, copies a
// real source tree in through one mount, reads, edits and removes through the
// other, looks for what it wrote on the disks and on the wire, and cleans up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin/fsmount", "the fsmount binary")
	src := flag.String("src", "", "the source tree to copy in (default: that of Go itself)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *src); err != nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
		stop()
		os.Exit(1)
	}
	fmt.Println("\ndemo: success")
}

func run(ctx context.Context, bin, src string) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if src == "" {
		root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("find Go's source tree: %w", err)
		}
		src = filepath.Join(strings.TrimSpace(string(root)), "src")
	}
	base, err := os.MkdirTemp("", "forever-demo-")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, bin: bin, src: src, base: base}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	for _, act := range []func() error{d.twoMachines, d.copyIn, d.compare, d.editOnB, d.secrets, d.removeOnB} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// demo is the stage: two machines under one temporary directory.
type demo struct {
	ctx       context.Context
	bin, src  string
	base      string
	a, b      machine
	treeFiles int
}

// machine is one node: its state, its mount.
type machine struct {
	name, data, mount string
	args              []string // --data and --listen
}

func (d *demo) machine(name string) (machine, error) {
	m := machine{name: name, data: filepath.Join(d.base, name+".data"), mount: filepath.Join(d.base, name)}
	m.args = []string{"--data", m.data, "--listen", "127.0.0.1:0", "--daemon"}
	return m, os.Mkdir(m.mount, 0o755)
}

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

func show(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// fsmount runs the command and returns its standard output.
func (d *demo) fsmount(args ...string) (string, error) {
	return d.command(d.bin, args...)
}

func (d *demo) command(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(d.ctx, name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

func (d *demo) twoMachines() (err error) {
	say("two machines")
	if d.a, err = d.machine("a"); err != nil {
		return err
	}
	if d.b, err = d.machine("b"); err != nil {
		return err
	}
	phrase, err := d.fsmount(append(d.a.args, d.a.mount)...)
	if err != nil {
		return err
	}
	show("a: a new volume at %s; its recovery phrase has %d words", d.a.mount, len(strings.Fields(phrase)))
	invite, err := d.fsmount("invite", "--data", d.a.data)
	if err != nil {
		return err
	}
	show("a: invites with %.24s…", invite)
	if _, err := d.fsmount(append(d.b.args, "--join", invite, d.b.mount)...); err != nil {
		return err
	}
	show("b: joined, mounted at %s", d.b.mount)
	return nil
}

func (d *demo) copyIn() error {
	say("copy %s into a", d.src)
	start := time.Now()
	if _, err := d.command("cp", "-r", d.src, filepath.Join(d.a.mount, "src")); err != nil {
		return err
	}
	show("cp -r returned after %v", since(start))
	err := filepath.WalkDir(d.src, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			d.treeFiles++
		}
		return err
	})
	show("%d files", d.treeFiles)
	return err
}

func since(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }

func (d *demo) compare() error {
	say("the same tree on b")
	start := time.Now()
	var err error
	for range 20 {
		if _, err = d.command("diff", "-r", d.src, filepath.Join(d.b.mount, "src")); err == nil {
			show("diff -r against the original finds no difference, %v after cp", since(start))
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("b does not show the tree: %.300s", err.Error())
}

func (d *demo) editOnB() error {
	say("edit on b, see on a")
	const line = "// edited on b\n"
	name := filepath.Join("src", "fmt", "print.go")
	f, err := os.OpenFile(filepath.Join(d.b.mount, name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	took, err := within(5*time.Second, func() bool {
		b, err := os.ReadFile(filepath.Join(d.a.mount, name))
		return err == nil && strings.HasSuffix(string(b), line)
	})
	if err != nil {
		return fmt.Errorf("a does not show the edit: %w", err)
	}
	show("a shows the new last line of %s after %v", name, took)
	return nil
}

func (d *demo) removeOnB() error {
	say("remove on b, see on a")
	start := time.Now()
	if err := os.RemoveAll(filepath.Join(d.b.mount, "src")); err != nil {
		return err
	}
	show("rm -r returned after %v", since(start))
	took, err := within(5*time.Second, func() bool {
		_, err := os.Lstat(filepath.Join(d.a.mount, "src"))
		return errors.Is(err, os.ErrNotExist)
	})
	if err != nil {
		return fmt.Errorf("a still shows it: %w", err)
	}
	show("gone on a %v later", took)
	return nil
}

// within waits until ok.
func within(limit time.Duration, ok func() bool) (time.Duration, error) {
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			return 0, fmt.Errorf("not within %v", limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return since(start), nil
}

func (d *demo) cleanUp() error {
	say("clean up")
	var errs []error
	for _, m := range []machine{d.b, d.a} {
		if m.mount == "" || !mounted(m.mount) {
			continue
		}
		// The demo's own context may be over; the mounts must go all the same.
		if out, err := exec.Command(d.bin, "umount", m.mount).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w: %s", m.mount, err, out))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	show("unmounted, removing %s", d.base)
	return os.RemoveAll(d.base)
}

func mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(b), " "+dir+" fuse")
}
