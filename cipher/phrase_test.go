package cipher

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// The list is that of BIP-39, unchanged: a phrase is read against it for ever.
func TestWordList(t *testing.T) {
	const want = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(wordList))); got != want {
		t.Errorf("the list's hash is %s", got)
	}
	list, index := words()
	for i, w := range list {
		if got, ok := wordIndex(w); !ok || got != i {
			t.Errorf("%s is word %d, not %d", w, got, i)
		}
	}
	if len(list) != 1<<wordBits || len(index) > 2*len(list) {
		t.Errorf("%d words", len(list))
	}
}

// These are the vectors of BIP-39's own tests for 32 bytes.
func TestWordsOfBIP39(t *testing.T) {
	for b, want := range map[byte]string{
		0x00: strings.Repeat("abandon ", 23) + "art",
		0x7f: strings.Repeat("legal winner thank year wave sausage worth useful ", 2) + "legal winner thank year wave sausage worth title",
		0xff: strings.Repeat("zoo ", 23) + "vote",
	} {
		var said [phraseSize]byte
		for i := range said {
			said[i] = b
		}
		if got := toWords(said); string(got) != want {
			t.Errorf("%x is said %s", b, got)
		}
	}
}

func TestPhrase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		said := [phraseSize]byte(rapid.SliceOfN(rapid.Byte(), phraseSize, phraseSize).Draw(t, "said"))
		p := toWords(said)
		short := strings.Fields(string(p))
		for i, w := range short {
			short[i] = w[:min(4, len(w))]
		}
		for _, typed := range []string{string(p), strings.ToUpper(string(p)), strings.ReplaceAll(string(p), " ", "\n\t ") + "\n", strings.Join(short, " ")} {
			if got, err := ParsePhrase(typed); err != nil || got != p {
				t.Fatalf("%q reads as %s: %v", typed, got, err)
			}
		}
		words := strings.Fields(string(p))
		at := rapid.IntRange(0, len(words)-1).Draw(t, "at")
		words[at] = "zzzz"
		_, err := ParsePhrase(strings.Join(words, " "))
		if !errors.Is(err, ErrPhrase) || !strings.Contains(err.Error(), fmt.Sprintf("word %d ", at+1)) || strings.Contains(err.Error(), "zzzz") {
			t.Fatalf("a wrong word %d: %v", at+1, err)
		}
	})
}

func TestWrongPhrases(t *testing.T) {
	good := strings.Repeat("abandon ", 23) + "art"
	for _, text := range []string{
		"", "abandon", good + " art", strings.Repeat("abandon ", 24), strings.Repeat("aban ", 23) + "arty",
		strings.Repeat("abandoned ", 23) + "art", strings.Repeat("a", 5000), strings.Repeat("äöü ", 24),
	} {
		if _, err := ParsePhrase(text); !errors.Is(err, ErrPhrase) {
			t.Errorf("%.40q: %v", text, err)
		}
		if _, err := Phrase(text).Recovery(); !errors.Is(err, ErrPhrase) {
			t.Errorf("recovery of %.40q: %v", text, err)
		}
	}
	if _, err := NewPhrase(iotest.ErrReader(errors.New("no randomness"))); err == nil {
		t.Error("made a phrase without randomness")
	}
}

func TestPhraseForVolume(t *testing.T) {
	first, err := NewPhrase(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := first.Recovery()
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewPhraseFor(rand.Reader, a.Volume)
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Recovery()
	if err != nil {
		t.Fatal(err)
	}
	if a.Volume != b.Volume {
		t.Error("another phrase names another volume")
	}
	if a.Sign.Equal(b.Sign) || a.box.Equal(b.box) {
		t.Error("another phrase has the same keys")
	}
	wrapped, err := WrapEpoch(fixedKey, b.Public().BoxKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.UnwrapEpoch(wrapped, nil); err != nil || got != fixedKey {
		t.Errorf("unwrapped %v: %v", got, err)
	}
	if _, err := a.UnwrapEpoch(wrapped, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("the retired phrase opens what came later: %v", err)
	}
}
