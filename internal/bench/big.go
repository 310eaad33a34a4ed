package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/dustin/go-humanize"
)

const mib = 1 << 20

// bigName names the group that needs much room.
const bigName = "big"

// bigGroup writes and reads one large file.
func bigGroup(sc scale) group {
	size := humanize.IBytes(uint64(sc.Size))
	return group{name: bigName, rows: []row{
		{key: "write", title: "write " + size + " and fsync", unit: "MiB/s", target: 0.60, before: bigData, run: bigWrite},
		{key: "read-cold", title: "read it, nothing cached", unit: "MiB/s", target: 0.80, cold: nothing, reads: true, run: bigRead},
		{key: "read-warm", title: "read it, cached", unit: "MiB/s", target: 0.90, reads: true, before: bigWarm, run: bigRead},
		{key: "rand-read-cold", title: "4 KiB random read, nothing cached", unit: "reads/s", target: 0.90, cold: nothing, reads: true,
			before: someOffsets(sc.RandomReads), run: randomRead},
		{key: "rand-write", title: "4 KiB random write, then one fsync", unit: "writes/s", target: 0.30, before: randomData(sc.RandomWrites), run: randomWrite},
	}}
}

func bigData(_ context.Context, p *place) error {
	p.buf = p.data.bytes(p.scale.Size)
	return nil
}

func bigWrite(_ context.Context, p *place) (float64, error) {
	f, err := os.Create(p.path("big"))
	if err != nil {
		return 0, err
	}
	for b := p.buf; len(b) > 0 && err == nil; b = b[mib:] {
		_, err = f.Write(b[:mib])
	}
	return float64(p.scale.Size) / mib, errors.Join(err, f.Sync(), f.Close())
}

func bigWarm(ctx context.Context, p *place) error {
	_, err := bigRead(ctx, p)
	return err
}

func bigRead(_ context.Context, p *place) (float64, error) {
	f, err := os.Open(p.path("big"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, mib)
	for left := p.scale.Size; left > 0; left -= mib {
		if _, err := io.ReadFull(f, buf); err != nil {
			return 0, err
		}
	}
	return float64(p.scale.Size) / mib, nil
}

func someOffsets(n int) func(context.Context, *place) error {
	return func(_ context.Context, p *place) error {
		p.at = p.data.offsets(n, p.scale.Size)
		return nil
	}
}

func randomRead(_ context.Context, p *place) (float64, error) {
	f, err := os.Open(p.path("big"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, block)
	for _, off := range p.at {
		if _, err := f.ReadAt(buf, off); err != nil {
			return 0, err
		}
	}
	return float64(len(p.at)), nil
}

func randomData(n int) func(context.Context, *place) error {
	return func(_ context.Context, p *place) error {
		p.at = p.data.offsets(n, p.scale.Size)
		p.buf = p.data.bytes(int64(len(p.at)) * block)
		return nil
	}
}

func randomWrite(_ context.Context, p *place) (float64, error) {
	f, err := os.OpenFile(p.path("big"), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	for i, off := range p.at {
		if _, err = f.WriteAt(p.buf[i*block:(i+1)*block], off); err != nil {
			break
		}
	}
	return float64(len(p.at)), errors.Join(err, f.Sync(), f.Close())
}
