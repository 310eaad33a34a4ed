package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// emptyGroup makes, looks at and renames empty files.
func emptyGroup(sc scale) group {
	n := strconv.Itoa(sc.Files)
	return group{name: "empty", rows: []row{
		{key: "create-empty", title: "create " + n + " empty files", unit: "files/s", target: 0.55, run: each("f", createEmpty)},
		{key: "stat-cold", title: "stat of " + n + ", nothing cached", unit: "files/s", target: 0.60, cold: nothing, reads: true, run: each("f", statOne)},
		{key: "rename", title: "rename " + n, unit: "files/s", target: 0.45, run: renameAll},
	}}
}

// smallGroup makes, reads and removes files of one block.
func smallGroup(sc scale) group {
	n := strconv.Itoa(sc.Files)
	return group{name: "small", rows: []row{
		{key: "create-4k", title: "create " + n + " files of 4 KiB", unit: "files/s", target: 0.35, before: smallData(sc.Files), run: each("f", createSmall)},
		{key: "read-4k", title: "open, read, close " + n + " of 4 KiB", unit: "files/s", target: 0.45, reads: true, run: readAll},
		{key: "unlink", title: "unlink " + n, unit: "files/s", target: 0.70, run: each("f", unlinkOne)},
	}}
}

// fsyncGroup makes small files durable one by one.
func fsyncGroup(sc scale) group {
	return group{name: "fsync", rows: []row{
		{key: "fsync", title: fmt.Sprintf("write 4 KiB and fsync, %d new files", sc.Fsyncs), unit: "files/s", target: 0.95,
			before: smallData(sc.Fsyncs), run: func(_ context.Context, p *place) (float64, error) {
				for i := range p.scale.Fsyncs {
					if err := createDurable(p, p.path("s"+strconv.Itoa(i)), i); err != nil {
						return 0, err
					}
				}
				return float64(p.scale.Fsyncs), nil
			}},
	}}
}

// each does something with every small file, by system calls: the library's share
// would be larger than that of a local file system.
func each(prefix string, do func(p *place, path string, i int) error) func(context.Context, *place) (float64, error) {
	return func(_ context.Context, p *place) (float64, error) {
		for i := range p.scale.Files {
			path := p.dir + "/" + prefix + strconv.Itoa(i)
			if err := do(p, path, i); err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
		}
		return float64(p.scale.Files), nil
	}
}

func createEmpty(_ *place, path string, _ int) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func statOne(_ *place, path string, _ int) error {
	var st unix.Stat_t
	return unix.Lstat(path, &st)
}

func unlinkOne(_ *place, path string, _ int) error { return unix.Unlink(path) }

func renameAll(_ context.Context, p *place) (float64, error) {
	for i := range p.scale.Files {
		n := strconv.Itoa(i)
		if err := unix.Rename(p.dir+"/f"+n, p.dir+"/g"+n); err != nil {
			return 0, err
		}
	}
	return float64(p.scale.Files), nil
}

func smallData(n int) func(context.Context, *place) error {
	return func(_ context.Context, p *place) error {
		p.buf = p.data.bytes(int64(n) * block)
		return nil
	}
}

func createSmall(p *place, path string, i int) error { return p.createBlock(path, i, false) }

func createDurable(p *place, path string, i int) error { return p.createBlock(path, i, true) }

// createBlock makes a file of block i of the data.
func (p *place) createBlock(path string, i int, durable bool) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, p.buf[i*block:(i+1)*block])
	if err == nil && n != block {
		err = errors.New("short write")
	}
	if durable {
		err = errors.Join(err, unix.Fsync(fd))
	}
	return errors.Join(err, unix.Close(fd))
}

func readAll(_ context.Context, p *place) (float64, error) {
	buf := make([]byte, 2*block)
	return each("f", func(_ *place, path string, _ int) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		n, err := unix.Read(fd, buf)
		if err == nil && n != block {
			err = fmt.Errorf("read %d bytes", n)
		}
		return errors.Join(err, unix.Close(fd))
	})(nil, p)
}
