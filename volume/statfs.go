package volume

import (
	"context"
	"fmt"
)

// Count returns the number of files and of directories, and the size of all files in bytes.
func (v *Volume) Count() (files, dirs, bytes uint64) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Count()
}

// Statfs returns the space of the disk below and the number of files.
func (v *Volume) Statfs(context.Context) (Statfs, error) {
	s := Statfs{BlockSize: 4096, NameLen: 255}
	if v.cfg.DiskUsage != nil {
		total, free, err := v.cfg.DiskUsage()
		if err != nil {
			return s, fmt.Errorf("ask for the disk's space: %w", err)
		}
		left := 2 * kept(total) // by chunks
		s.Blocks, s.Bfree, s.Bavail = total/4096, free/4096, (free-min(free, left))/4096
	}
	files, dirs, _ := v.Count()
	s.Ffree = 1 << 32
	s.Files = files + dirs + s.Ffree
	return s, nil
}
