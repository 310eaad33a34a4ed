package namespace

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"
)

// maxExt is the longest extension a conflict name keeps, in bytes, dot included.
const maxExt = 32

// conflictName returns the name under which an entry is shown that lost its
// slot's name to another: "stem (conflict DEVICE 2026-11-22 103000 ab12cd34).ext".
// Nothing but the op that made the entry decides it. Level counts the names made so that
// entries of their own have.
func conflictName(name, device string, e EntryID, unixNano int64, level int) string {
	stem, ext := splitExt(name)
	mark := " (conflict " + device + " " + time.Unix(0, unixNano).UTC().Format("2006-01-02 150405") + " " +
		hex.EncodeToString(conflictHash(e, level)) + ")" + ext
	return cut(stem, MaxName-len(mark)) + mark
}

// conflictHash is what tells conflict names apart, 4 bytes.
func conflictHash(e EntryID, level int) []byte {
	text := e.Append([]byte("forever conflict\x00"))
	if level > 0 {
		text = binary.AppendUvarint(text, uint64(level))
	}
	sum := sha256.Sum256(text)
	return sum[:4]
}

// splitExt splits a name before its last dot. Dotfiles have no extension.
func splitExt(name string) (stem, ext string) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || strings.Trim(name[:i], ".") == "" || len(name)-i > maxExt {
		return name, ""
	}
	return name[:i], name[i:]
}

// cut shortens s to at most n bytes, between runes where it has runes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// deviceName returns name as it may stand in a file name, or a name made of the author's ID. What it returned it
// returns again: an import holds it against that.
func deviceName(name string, a AuthorID) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == '/' || r == 0x7f {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if name = strings.TrimSpace(cut(strings.TrimSpace(name), MaxDevice)); name == "" {
		return hex.EncodeToString(a[:4])
	}
	return name
}
