package cipher

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/zeebo/blake3"
)

// ErrPhrase is returned for words that are no recovery phrase.
var ErrPhrase = errors.New("not a recovery phrase")

// Phrase is a recovery phrase: 24 words that name a volume and hold the secret
// that brings it back. It is shown once and kept nowhere.
type Phrase string

const (
	phraseWords = 24
	wordBits    = 11
	// phraseSize is what the words say: the volume ID and a secret of 16 bytes.
	phraseSize = 32
)

// NewPhrase makes the phrase of a new volume, ID and secret, from rand.
func NewPhrase(rand io.Reader) (Phrase, error) {
	var volume VolumeID
	if _, err := io.ReadFull(rand, volume[:]); err != nil {
		return "", fmt.Errorf("make recovery phrase: %w", err)
	}
	return NewPhraseFor(rand, volume)
}

// NewPhraseFor makes another phrase of a volume: the secret, from rand, is new.
func NewPhraseFor(rand io.Reader, volume VolumeID) (Phrase, error) {
	var said [phraseSize]byte
	copy(said[:], volume[:])
	if _, err := io.ReadFull(rand, said[len(volume):]); err != nil {
		return "", fmt.Errorf("make recovery phrase: %w", err)
	}
	return toWords(said), nil
}

// wordList is the English list of BIP-39, where each word is told by its first four
// letters.
//
//go:embed words.txt
var wordList string

// words returns the list, and where each word and each four letters are in it.
var words = sync.OnceValues(func() (list []string, index map[string]int) {
	list = strings.Fields(wordList)
	index = make(map[string]int, 2*len(list))
	for i, w := range list {
		index[w] = i
		index[w[:min(4, len(w))]] = i
	}
	return list, index
})

// toWords says 32 bytes in 24 words, as BIP-39 does.
func toWords(said [phraseSize]byte) Phrase {
	list, _ := words()
	bits := append(said[:], phraseSum(said))
	out := make([]string, phraseWords)
	for i := range out {
		out[i] = list[bitsAt(bits, i*wordBits)]
	}
	return Phrase(strings.Join(out, " "))
}

// GoString does not show the words.
func (p Phrase) GoString() string { return "recovery phrase" }

// phraseSum is the checksum of BIP-39, so that its tools can tell a slip.
func phraseSum(said [phraseSize]byte) byte {
	sum := sha256.Sum256(said[:])
	return sum[0]
}

// bitsAt returns the 11 bits that begin at a bit of b.
func bitsAt(b []byte, at int) (v int) {
	for i := at; i < at+wordBits; i++ {
		v = v<<1 | int(b[i/8]>>(7-i%8)&1)
	}
	return v
}

// ParsePhrase reads what people typed: either case, any white space between the
// words, and of a word its first four letters suffice. Errors wrap ErrPhrase, say
// which word is wrong and do not repeat it.
func ParsePhrase(text string) (Phrase, error) {
	said, err := fromWords(text)
	if err != nil {
		return "", err
	}
	return toWords(said), nil
}

// fromWords returns what 24 words say.
func fromWords(text string) (said [phraseSize]byte, err error) {
	if len(text) > 4096 {
		return said, fmt.Errorf("%w: too long", ErrPhrase)
	}
	given := strings.Fields(strings.ToLower(text))
	if len(given) != phraseWords {
		return said, fmt.Errorf("%w: %d words, not %d", ErrPhrase, len(given), phraseWords)
	}
	var bits [phraseSize + 1]byte
	for i, w := range given {
		v, ok := wordIndex(w)
		if !ok {
			return said, fmt.Errorf("%w: word %d is not in the list of words", ErrPhrase, i+1)
		}
		for j := range wordBits {
			at := i*wordBits + j
			bits[at/8] |= byte(v>>(wordBits-1-j)&1) << (7 - at%8)
		}
	}
	said = [phraseSize]byte(bits[:])
	if phraseSum(said) != bits[phraseSize] {
		return said, fmt.Errorf("%w: all words are in the list, but one or more are wrong or out of order", ErrPhrase)
	}
	return said, nil
}

// wordIndex finds a word by itself or by a beginning of four letters and more.
func wordIndex(w string) (int, bool) {
	list, index := words()
	if i, ok := index[w]; ok {
		return i, true
	}
	if len(w) < 4 {
		return 0, false
	}
	i, ok := index[w[:4]]
	return i, ok && strings.HasPrefix(list[i], w)
}

// Recovery is what a phrase stands for: keys that may connect to the volume, admit,
// revoke, and open every epoch.
type Recovery struct {
	Volume VolumeID
	Sign   ed25519.PrivateKey
	box    *ecdh.PrivateKey
}

// RecoveryPublic are the public halves, which members keep.
type RecoveryPublic struct {
	Volume  VolumeID
	SignKey ed25519.PublicKey // 32 bytes
	BoxKey  []byte            // X25519, 32 bytes, for WrapEpoch
}

// Recovery derives the phrase's keys. Errors wrap ErrPhrase.
func (p Phrase) Recovery() (*Recovery, error) {
	said, err := fromWords(string(p))
	if err != nil {
		return nil, err
	}
	var seed, box [32]byte
	blake3.DeriveKey("forever 1 recovery phrase: Ed25519", said[:], seed[:])
	blake3.DeriveKey("forever 1 recovery phrase: X25519", said[:], box[:])
	key, err := ecdh.X25519().NewPrivateKey(box[:])
	if err != nil {
		return nil, fmt.Errorf("derive recovery keys: %w", err)
	}
	return &Recovery{Volume: VolumeID(said[:]), Sign: ed25519.NewKeyFromSeed(seed[:]), box: key}, nil
}

// Public returns the halves that may be known.
func (r *Recovery) Public() RecoveryPublic {
	return RecoveryPublic{
		Volume:  r.Volume,
		SignKey: r.Sign.Public().(ed25519.PublicKey),
		BoxKey:  r.box.PublicKey().Bytes(),
	}
}

// UnwrapEpoch opens an epoch key that WrapEpoch sealed to the public BoxKey with
// the same info. Errors wrap ErrDamaged.
func (r *Recovery) UnwrapEpoch(wrapped, info []byte) (EpochKey, error) {
	return unwrapEpoch(r.box, wrapped, info)
}

// String does not show the keys.
func (r Recovery) String() string { return "recovery keys of volume " + r.Volume.String() }

// GoString does as String.
func (r Recovery) GoString() string { return r.String() }
