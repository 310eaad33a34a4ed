package casstore

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/foreverfs/forever/chunk"
)

func TestRange(t *testing.T) {
	s, err := Open(Config{FS: vfs.NewMem(), Dir: "store"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids []chunk.ID
	for i := range 300 {
		id, b := blob(i)
		if _, err := s.Put(t.Context(), id, b); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), ids[7]); err != nil {
		t.Fatal(err)
	}
	ids = slices.Delete(ids, 7, 8)
	slices.SortFunc(ids, func(a, b chunk.ID) int { return bytes.Compare(a[:], b[:]) })
	for _, r := range [][2]int{{0, len(ids)}, {10, 200}, {50, 50}} {
		var to chunk.ID
		if r[1] < len(ids) {
			to = ids[r[1]]
		}
		var got []chunk.ID
		err := s.Range(ids[r[0]], to, func(id chunk.ID, size int) bool {
			if n, err := s.Size(id); err != nil || n != size {
				t.Errorf("%v has %d bytes, listed with %d (%v)", id, n, size, err)
			}
			got = append(got, id)
			return true
		})
		if err != nil || !slices.Equal(got, ids[r[0]:r[1]]) {
			t.Errorf("from %d to %d: %d listed, %v", r[0], r[1], len(got), err)
		}
	}
	n := 0
	if err := s.Range(chunk.ID{}, chunk.ID{}, func(chunk.ID, int) bool { n++; return n < 5 }); err != nil || n != 5 {
		t.Errorf("%d listed, %v", n, err)
	}
}
