package cipher

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/foreverfs/forever/chunk"
)

// seeds adds the values of a golden file, and a piece of each.
func seeds(f *testing.F, name string, add func(value string)) {
	f.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		add(value)
		add(value[:len(value)/2])
	}
}

// FuzzOpen opens foreign bytes.
func FuzzOpen(f *testing.F) {
	k := fixedRing()
	for _, plain := range goldenPlain() {
		sealed, _ := k.Seal(nil, plain)
		f.Add(sealed)
		sealed, _ = k.SealBatch(plain, nil)
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		known := func(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnknownEpoch) }
		if plain, err := k.Open(nil, b); err == nil && len(plain) > chunk.MaxPlain || err != nil && !known(err) {
			t.Fatalf("%d bytes: %v", len(plain), err)
		}
		if plain, err := k.OpenBatch(b, nil); err == nil && len(plain) > MaxBatch || err != nil && !known(err) {
			t.Fatalf("%d bytes: %v", len(plain), err)
		}
	})
}

// FuzzFrame opens frames as somebody with the key could forge them.
func FuzzFrame(f *testing.F) {
	for _, plain := range goldenPlain() {
		f.Add(appendFrame(nil, plain))
	}
	f.Add(frameOf(withZstd, 1000, newEncoder().EncodeAll(make([]byte, 1000), nil)))
	k := fixedRing()
	e, err := k.sealing()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		plain, err := k.Open([]byte("x"), sealFrame(t, e, frame, kindChunk, nil))
		if plain[0] != 'x' || err != nil && len(plain) != 1 || len(plain) > 1+chunk.MaxPlain {
			t.Fatalf("%d bytes: %v", len(plain), err)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

// FuzzSeal seals and opens anything.
func FuzzSeal(f *testing.F) {
	for _, plain := range goldenPlain() {
		f.Add(plain)
	}
	k := fixedRing()
	f.Fuzz(func(t *testing.T, plain []byte) {
		sealed, err := k.Seal(nil, plain)
		if err != nil {
			t.Skip()
		}
		if got, err := k.Open(nil, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened as %x: %v", got, err)
		}
	})
}

func FuzzParsePhrase(f *testing.F) {
	seeds(f, "phrase.txt", func(v string) { f.Add(v) })
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePhrase(text)
		if err != nil {
			if !errors.Is(err, ErrPhrase) {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParsePhrase(string(p)); err != nil || again != p {
			t.Fatalf("%s reads as %s: %v", p, again, err)
		}
	})
}

func FuzzParseInvite(f *testing.F) {
	seeds(f, "invite.txt", func(v string) { f.Add(v) })
	f.Fuzz(func(t *testing.T, line string) {
		i, err := ParseInvite(line)
		if err != nil {
			if !errors.Is(err, ErrInvite) {
				t.Fatal(err)
			}
			return
		}
		if i.String() != strings.TrimSpace(line) {
			t.Fatalf("%s is another way to say %s", line, i)
		}
	})
}

// FuzzInviteBytes gets past the checksum.
func FuzzInviteBytes(f *testing.F) {
	b, err := inviteText.DecodeString(strings.TrimPrefix(fixedInvite().String(), invitePrefix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-inviteCheck])
	f.Fuzz(func(t *testing.T, b []byte) {
		line := invitePrefix + inviteText.EncodeToString(append(bytes.Clone(b), inviteSum(b)...))
		i, err := ParseInvite(line)
		if err == nil && i.String() != line || err != nil && !errors.Is(err, ErrInvite) {
			t.Fatalf("%s reads as %s: %v", line, i, err)
		}
	})
}

func FuzzUnwrapEpoch(f *testing.F) {
	d := fixedDevice(f)
	wrapped, err := WrapEpoch(fixedKey, d.BoxKey(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := d.UnwrapEpoch(b, nil); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

// FuzzParseKeyFile gives no passphrase: a derivation takes its time by design.
func FuzzParseKeyFile(f *testing.F) {
	for _, passphrase := range []string{"", "x"} {
		b, err := marshalKeyFile(fixedDevice(f), DiskKey{}, []byte(passphrase), cheapKDF())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b[:len(b)-keyCheck], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		if !whole { // get past the checksum
			b = append(bytes.Clone(b), keySum(b)...)
		}
		_, _, err := ParseKeyFile(b, nil)
		if err != nil && !errors.Is(err, ErrKeyFile) && !errors.Is(err, ErrPassphrase) {
			t.Fatal(err)
		}
	})
}
