package cipher

import (
	"bytes"
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
)

// Golden vectors hold the formats. They are written once, by a new format, and
// never change: -new-vectors writes only files that are not there.
var newVectors = flag.Bool("new-vectors", false, "write the golden vectors that are missing")

// golden reads a file of lines "name value" in testdata. made says what a new file
// would hold.
func golden(t *testing.T, name string, made func() map[string]string) map[string]string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if _, err := os.Stat(path); os.IsNotExist(err) && *newVectors {
		var text strings.Builder
		vectors := made()
		for _, k := range slices.Sorted(maps.Keys(vectors)) {
			fmt.Fprintf(&text, "%s %s\n", k, vectors[k])
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	vectors := map[string]string{}
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		vectors[k] = v
	}
	return vectors
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fixedKey is the epoch key of tests and golden vectors.
var fixedKey = EpochKey{ID: EpochID{15: 1}, Secret: [32]byte{31: 2}}

func fixedRing() *Keyring {
	var k Keyring
	k.Add(fixedKey)
	k.SetCurrent(fixedKey.ID)
	return &k
}

// fixedDevice is the device of tests and golden vectors.
func fixedDevice(t testing.TB) *Device {
	d, err := NewDevice(bytes.NewReader(counted(64)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// counted returns the bytes 0, 1, 2, …
func counted(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// goldenPlain are the plaintexts of the vectors of sealing.
func goldenPlain() map[string][]byte {
	return map[string][]byte{
		"empty":    nil,
		"one":      {0x42},
		"counted":  counted(300),
		"repeated": bytes.Repeat([]byte("forever and ever\n"), 100),
	}
}

// TestGoldenOpen holds opening: what was sealed once opens for ever. Compressors
// are not stable, so nothing is said of what they make today.
func TestGoldenOpen(t *testing.T) {
	k := fixedRing()
	vectors := golden(t, "open.txt", func() map[string]string {
		made := map[string]string{}
		for name, plain := range goldenPlain() {
			sealed, _ := k.Seal(nil, plain)
			made["chunk-"+name] = hex.EncodeToString(sealed)
			sealed, _ = k.SealBatch(plain, []byte("place"))
			made["batch-"+name] = hex.EncodeToString(sealed)
		}
		return made
	})
	for name, plain := range goldenPlain() {
		got, err := k.Open(nil, unhex(t, vectors["chunk-"+name]))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("chunk %s opens as %x: %v", name, got, err)
		}
		got, err = k.OpenBatch(unhex(t, vectors["batch-"+name]), []byte("place"))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("batch %s opens as %x: %v", name, got, err)
		}
	}
}

// TestGoldenSeal holds sealing of given frames, and that incompressible plaintext
// becomes the frame that the format says.
func TestGoldenSeal(t *testing.T) {
	k := fixedRing()
	e, err := k.sealing()
	if err != nil {
		t.Fatal(err)
	}
	frames := map[string][]byte{
		"stored":  append([]byte{0, 0, 0, 0, 3, 0, 0, 0, 3, 'a', 'b', 'c'}, make([]byte, 253)...),
		"counted": counted(1000),
	}
	vectors := golden(t, "seal.txt", func() map[string]string {
		made := map[string]string{}
		for name, frame := range frames {
			made["chunk-"+name] = hex.EncodeToString(sealFrame(t, e, frame, kindChunk, nil))
			made["batch-"+name] = hex.EncodeToString(sealFrame(t, e, frame, kindBatch, []byte("place")))
		}
		id := k.DedupKey([]byte("abc"))
		made["dedup-abc"] = hex.EncodeToString(id[:])
		sealed, _ := k.Seal(nil, []byte("abc"))
		made["id-abc"] = idOf(sealed).String()
		return made
	})
	for name, frame := range frames {
		want := unhex(t, vectors["chunk-"+name])
		if got := sealFrame(t, e, frame, kindChunk, nil); !bytes.Equal(got, want) {
			t.Errorf("chunk %s sealed as %x", name, got)
		}
		if got := specSeal(t, "chunks", 1, frame, nil); !bytes.Equal(got, want) {
			t.Errorf("chunk %s is not as the specification says: %x", name, got)
		}
		want = unhex(t, vectors["batch-"+name])
		if got := sealFrame(t, e, frame, kindBatch, []byte("place")); !bytes.Equal(got, want) {
			t.Errorf("batch %s sealed as %x", name, got)
		}
		if got := specSeal(t, "batches", 2, frame, []byte("place")); !bytes.Equal(got, want) {
			t.Errorf("batch %s is not as the specification says: %x", name, got)
		}
	}
	sealed, err := k.Seal(nil, []byte("abc"))
	id := idOf(sealed)
	if err != nil || !bytes.Equal(sealed, unhex(t, vectors["chunk-stored"])) || id != chunk.ID(unhex(t, vectors["id-abc"])) {
		t.Errorf("abc sealed as %v %x: %v", id, sealed, err)
	}
	if got := k.DedupKey([]byte("abc")); !bytes.Equal(got[:], unhex(t, vectors["dedup-abc"])) {
		t.Errorf("abc is found by %x", got)
	}
}

// idOf returns the ID of a chunk.
func idOf(sealed []byte) chunk.ID { return blake3.Sum256(sealed) }

// sealFrame seals any bytes as a frame, as somebody with the key can.
func sealFrame(t testing.TB, e *epochKeys, frame []byte, k kind, aad []byte) []byte {
	t.Helper()
	out, err := e.encrypt(append(make([]byte, headerSize, headerSize+len(frame)+tagSize), frame...), 0, k, aad)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// specSeal is docs/format/sealed-chunk.md word by word.
func specSeal(t *testing.T, kind string, kindByte byte, frame, aad []byte) []byte {
	t.Helper()
	var sivKey, encKey [32]byte
	blake3.DeriveKey("forever 1 epoch: synthetic IV of "+kind, fixedKey.Secret[:], sivKey[:])
	blake3.DeriveKey("forever 1 epoch: keys of "+kind, fixedKey.Secret[:], encKey[:])
	keyed := func(key [32]byte, data []byte) (sum [32]byte) {
		h, err := blake3.NewKeyed(key[:])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write(data)
		h.Sum(sum[:0])
		return sum
	}
	if len(aad) > 0 {
		sivKey = keyed(sivKey, aad)
	}
	siv := keyed(sivKey, frame)
	key := keyed(encKey, siv[:])
	header := slices.Concat([]byte{1, kindByte}, fixedKey.ID[:], siv[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := stdcipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(header, gcm.Seal(nil, make([]byte, 12), frame, slices.Concat(header, aad)))
}

func TestGoldenDevice(t *testing.T) {
	d := fixedDevice(t)
	info := []byte("info")
	vectors := golden(t, "device.txt", func() map[string]string {
		wrapped, _ := WrapEpoch(fixedKey, d.BoxKey(), info)
		id := d.ID()
		return map[string]string{
			"id": hex.EncodeToString(id[:]), "text": id.String(), "box": hex.EncodeToString(d.BoxKey()),
			"signature": hex.EncodeToString(ed25519.Sign(d.Private(), []byte("message"))), "wrapped": hex.EncodeToString(wrapped),
		}
	})
	if got := d.ID(); !bytes.Equal(got[:], unhex(t, vectors["id"])) || got.String() != vectors["text"] {
		t.Errorf("ID %x %v", got[:], got)
	}
	if got := d.BoxKey(); !bytes.Equal(got, unhex(t, vectors["box"])) {
		t.Errorf("box key %x", got)
	}
	if got := ed25519.Sign(d.Private(), []byte("message")); !bytes.Equal(got, unhex(t, vectors["signature"])) {
		t.Errorf("signature %x", got)
	}
	if got, err := d.UnwrapEpoch(unhex(t, vectors["wrapped"]), info); err != nil || got != fixedKey {
		t.Errorf("unwrapped %v: %v", got, err)
	}
}

func TestGoldenPhrase(t *testing.T) {
	vectors := golden(t, "phrase.txt", func() map[string]string {
		p, _ := NewPhrase(bytes.NewReader(counted(32)))
		r, _ := p.Recovery()
		pub := r.Public()
		wrapped, _ := WrapEpoch(fixedKey, pub.BoxKey, []byte("info"))
		return map[string]string{
			"words": string(p), "volume": r.Volume.String(), "sign": hex.EncodeToString(pub.SignKey),
			"box": hex.EncodeToString(pub.BoxKey), "wrapped": hex.EncodeToString(wrapped),
		}
	})
	p, err := NewPhrase(bytes.NewReader(counted(32)))
	if err != nil || string(p) != vectors["words"] {
		t.Fatalf("phrase %s: %v", p, err)
	}
	r, err := Phrase(vectors["words"]).Recovery()
	if err != nil {
		t.Fatal(err)
	}
	pub := r.Public()
	if r.Volume.String() != vectors["volume"] || pub.Volume != r.Volume {
		t.Errorf("volume %v", r.Volume)
	}
	if !bytes.Equal(pub.SignKey, unhex(t, vectors["sign"])) || !bytes.Equal(pub.BoxKey, unhex(t, vectors["box"])) {
		t.Errorf("public keys %x %x", pub.SignKey, pub.BoxKey)
	}
	if got, err := r.UnwrapEpoch(unhex(t, vectors["wrapped"]), []byte("info")); err != nil || got != fixedKey {
		t.Errorf("unwrapped %v: %v", got, err)
	}
}

// fixedInvite is the invite of tests and golden vectors.
func fixedInvite() Invite {
	return Invite{
		Volume: VolumeID(counted(16)), Device: DeviceID(counted(32)), Secret: [16]byte(counted(16)),
		Addrs: []string{"192.0.2.1:4747", "[2001:db8::1]:4747", "forever.example:1"},
		Role:  RoleReplica, Expires: time.Unix(1795392000, 0),
	}
}

func TestGoldenInvite(t *testing.T) {
	vectors := golden(t, "invite.txt", func() map[string]string {
		return map[string]string{"invite": fixedInvite().String()}
	})
	want := fixedInvite()
	if got := want.String(); got != vectors["invite"] {
		t.Errorf("invite is %s", got)
	}
	if got, err := ParseInvite(vectors["invite"]); err != nil || !equalInvites(got, want) {
		t.Errorf("invite reads as %#v: %v", got, err)
	}
}

func equalInvites(a, b Invite) bool {
	return a.Volume == b.Volume && a.Device == b.Device && a.Secret == b.Secret && a.Role == b.Role &&
		a.Expires.Equal(b.Expires) && slices.Equal(a.Addrs, b.Addrs)
}

// cheapKDF is fast enough for tests.
func cheapKDF() kdf { return kdf{time: 1, memory: 64, threads: 1, salt: [saltSize]byte(counted(16))} }

func TestGoldenKeyFile(t *testing.T) {
	d, disk := fixedDevice(t), DiskKey(counted(32))
	vectors := golden(t, "keyfile.txt", func() map[string]string {
		open, _ := marshalKeyFile(d, disk, nil, kdf{})
		closed, _ := marshalKeyFile(d, disk, []byte("correct horse"), cheapKDF())
		return map[string]string{"open": hex.EncodeToString(open), "passphrase": hex.EncodeToString(closed)}
	})
	for name, passphrase := range map[string][]byte{"open": nil, "passphrase": []byte("correct horse")} {
		want := unhex(t, vectors[name])
		if got, err := marshalKeyFile(d, disk, passphrase, cheapKDF()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: written as %x: %v", name, got, err)
		}
		gotDevice, gotDisk, err := ParseKeyFile(want, passphrase)
		if err != nil || !bytes.Equal(gotDevice.Marshal(), d.Marshal()) || gotDisk != disk {
			t.Errorf("%s: does not read back: %v", name, err)
		}
	}
	if n := binary.BigEndian.Uint32(unhex(t, vectors["passphrase"])[keyHeader+4:]); n != 64 {
		t.Errorf("memory is %d", n)
	}
}
