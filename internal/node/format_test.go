package node

import (
	"bytes"
	"errors"
	"testing"
)

// The text of format files that were written once; it never changes.
const (
	goldenMember   = "forever data directory\nversion 1\nvolume 000102030405060708090a0b0c0d0e0f\nrole member\n"
	goldenCreating = "forever data directory\nversion 1\ncreating\n"
)

func goldenVolume() (v [16]byte) {
	for i := range v {
		v[i] = byte(i)
	}
	return v
}

func TestFormatGolden(t *testing.T) {
	for _, c := range []struct {
		text string
		want format
	}{
		{goldenMember, format{Version: 1, Volume: goldenVolume(), Role: RoleMember}},
		{goldenCreating, format{Version: 1, Creating: true}},
	} {
		got, err := parseFormat([]byte(c.text))
		if err != nil || got != c.want {
			t.Errorf("parseFormat(%q) = %+v, %v; want %+v", c.text, got, err, c.want)
		}
		if text := c.want.marshal(); string(text) != c.text {
			t.Errorf("marshal(%+v) = %q, want %q", c.want, text, c.text)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, text := range []string{
		"", "forever data directory\n", "forever data directory\nversion 0\n", "forever data directory\nversion x\n",
		"somebody else\nversion 1\n", "forever data directory\nrole member\nversion 1\n",
		"forever data directory\nversion 1\nrole member\n", "forever data directory\nversion 1\nvolume 00\nrole member\n",
		"forever data directory\nversion 1\nvolume 000102030405060708090a0b0c0d0e0f\nrole king\n",
		goldenMember + "surprise 1\n", goldenMember + string(make([]byte, formatMax)),
	} {
		if f, err := parseFormat([]byte(text)); err == nil {
			t.Errorf("parseFormat(%.80q) = %+v, want an error", text, f)
		}
	}
	if _, err := parseFormat([]byte("forever data directory\nversion 3\nwhatever\n")); !errors.Is(err, errNewerFormat) {
		t.Errorf("version 3: %v, want errNewerFormat", err)
	}
}

func FuzzParseFormat(f *testing.F) {
	f.Add([]byte(goldenMember))
	f.Add([]byte(goldenCreating))
	f.Add([]byte("forever data directory\nversion 99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseFormat(text)
		if err != nil {
			return
		}
		again, err := parseFormat(v.marshal())
		if err != nil || again != v {
			t.Fatalf("%q: %+v became %+v, %v", text, v, again, err)
		}
		if !v.Creating && !bytes.Contains(v.marshal(), []byte("role ")) {
			t.Fatalf("%+v lacks a role", v)
		}
	})
}
