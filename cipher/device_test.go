package cipher

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDevice(t *testing.T) {
	d, err := NewDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseDevice(d.Marshal())
	if err != nil || again.ID() != d.ID() || !bytes.Equal(again.BoxKey(), d.BoxKey()) {
		t.Fatalf("read back as %v: %v", again, err)
	}
	if id := d.ID(); !ed25519.Verify(id[:], []byte("message"), ed25519.Sign(again.Private(), []byte("message"))) {
		t.Error("a signature is not accepted")
	}
	for _, n := range []int{0, 63, 65} {
		if _, err := ParseDevice(make([]byte, n)); err == nil {
			t.Errorf("%d bytes read as a device", n)
		}
	}
	if _, err := NewDevice(iotest.ErrReader(errors.New("no randomness"))); err == nil {
		t.Error("made a device without randomness")
	}
}

func TestWrapEpoch(t *testing.T) {
	key, err := NewEpochKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := fixedDevice(t)
	wrapped, err := WrapEpoch(key, d.BoxKey(), []byte("info"))
	if err != nil || len(wrapped) != WrappedSize {
		t.Fatalf("%d bytes: %v", len(wrapped), err)
	}
	if got, err := d.UnwrapEpoch(wrapped, []byte("info")); err != nil || got != key {
		t.Errorf("unwrapped %v: %v", got, err)
	}
	if twice, err := WrapEpoch(key, d.BoxKey(), []byte("info")); err != nil || bytes.Equal(twice, wrapped) {
		t.Errorf("wrapped alike twice: %v", err)
	}
	if _, err := d.UnwrapEpoch(wrapped, []byte("inf0")); !errors.Is(err, ErrDamaged) {
		t.Errorf("other info: %v", err)
	}
	other, err := NewDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.UnwrapEpoch(wrapped, []byte("info")); !errors.Is(err, ErrDamaged) {
		t.Errorf("other device: %v", err)
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if got, err := d.UnwrapEpoch(bad, []byte("info")); !errors.Is(err, ErrDamaged) && got != key {
			t.Errorf("byte %d: %v", i, err)
		}
		if _, err := d.UnwrapEpoch(wrapped[:i], []byte("info")); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d: %v", i, err)
		}
	}
	for _, pub := range [][]byte{nil, make([]byte, 31), make([]byte, 32), make([]byte, 33)} {
		if _, err := WrapEpoch(key, pub, nil); err == nil {
			t.Errorf("wrapped for the key %x", pub)
		}
	}
}

// What holds a secret must not show it in a log.
func TestSecretsDoNotPrint(t *testing.T) {
	secret := "secret-secret-secret-secret-secr"
	d, err := NewDevice(strings.NewReader(secret + secret))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPhraseFor(strings.NewReader(secret), VolumeID{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Recovery()
	if err != nil {
		t.Fatal(err)
	}
	signs := []string{strings.Trim(fmt.Sprint(r.Sign[:4]), "[]"), fmt.Sprintf("%x", r.Sign[:4])}
	for _, v := range []any{
		d, *d, EpochKey{Secret: [32]byte([]byte(secret))}, DiskKey([]byte(secret)), r, *r,
		struct{ K EpochKey }{EpochKey{Secret: [32]byte([]byte(secret))}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
			got := strings.ToLower(fmt.Sprintf(verb, v))
			for _, hidden := range append(signs, "secr", "115, 101, 99", "115 101 99", "73656372", "0x73, 0x65, 0x63") {
				if strings.Contains(got, hidden) {
					t.Errorf("%s of a %T shows its secret: %s", verb, v, got)
				}
			}
		}
	}
}
