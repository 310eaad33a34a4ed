package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// listGroup lists one large directory.
func listGroup(sc scale) group {
	return group{name: "list", once: true, prepare: makeMany, rows: []row{
		{key: "list", title: "list a directory of " + humanize.Comma(int64(sc.Listed)), unit: "entries/s", target: 0.60, cold: noNames, reads: true, run: list},
	}}
}

func makeMany(_ context.Context, p *place) error {
	for i := range p.scale.Listed {
		path := fmt.Sprintf("%s/a file with a name of some length %d", p.dir, i)
		if err := createEmpty(p, path, i); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// list reads names as ls -f does.
func list(_ context.Context, p *place) (float64, error) {
	fd, err := unix.Open(p.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return 0, err
		}
		if n <= 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			used, _, more := unix.ParseDirent(b, -1, names)
			b, names = b[used:], more
		}
	}
	if len(names) != p.scale.Listed {
		return 0, fmt.Errorf("%d names, not %d", len(names), p.scale.Listed)
	}
	return float64(len(names)), nil
}
