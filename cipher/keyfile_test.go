package cipher

import (
	"bytes"
	"errors"
	"testing"
)

func TestKeyFile(t *testing.T) {
	d, disk := fixedDevice(t), DiskKey(counted(32))
	plain, err := MarshalKeyFile(d, disk, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range [][]byte{nil, []byte("not needed")} {
		gotDevice, gotDisk, err := ParseKeyFile(plain, passphrase)
		if err != nil || gotDevice.ID() != d.ID() || gotDisk != disk {
			t.Errorf("read back %v: %v", gotDevice, err)
		}
	}
	closed, err := MarshalKeyFile(d, disk, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(closed, disk[:]) || bytes.Contains(closed, d.Marshal()[:32]) {
		t.Error("a key file with a passphrase holds keys in plain")
	}
	gotDevice, gotDisk, err := ParseKeyFile(closed, []byte("correct horse"))
	if err != nil || !bytes.Equal(gotDevice.Marshal(), d.Marshal()) || gotDisk != disk {
		t.Errorf("read back %v: %v", gotDevice, err)
	}
	for _, wrong := range []string{"", "wrong horse"} {
		if _, _, err := ParseKeyFile(closed, []byte(wrong)); !errors.Is(err, ErrPassphrase) || errors.Is(err, ErrKeyFile) {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
	}
	if again, err := MarshalKeyFile(d, disk, []byte("correct horse")); err != nil || bytes.Equal(again, closed) {
		t.Errorf("two files alike: %v", err)
	}
}

func TestDamagedKeyFile(t *testing.T) {
	d := fixedDevice(t)
	for _, passphrase := range [][]byte{nil, []byte("x")} {
		whole, err := marshalKeyFile(d, DiskKey{}, passphrase, cheapKDF())
		if err != nil {
			t.Fatal(err)
		}
		check := func(b []byte) {
			t.Helper()
			if _, _, err := ParseKeyFile(b, passphrase); !errors.Is(err, ErrKeyFile) || errors.Is(err, ErrPassphrase) {
				t.Errorf("%d bytes: %v", len(b), err)
			}
		}
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 1
			check(bad)
			check(whole[:i])
		}
		check(append(bytes.Clone(whole), 0))
	}
}

// Parameters from a file must not make the next start take all memory or all day.
func TestKeyFileCaps(t *testing.T) {
	for name, change := range map[string]func(*kdf){
		"no passes":     func(k *kdf) { k.time = 0 },
		"many passes":   func(k *kdf) { k.time = 65 },
		"little memory": func(k *kdf) { k.memory, k.threads = 31, 4 },
		"much memory":   func(k *kdf) { k.memory = 1<<20 + 1 },
		"no threads":    func(k *kdf) { k.threads = 0 },
		"many threads":  func(k *kdf) { k.memory, k.threads = 1<<20, 65 },
	} {
		k := cheapKDF()
		change(&k)
		if err := k.check(); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, err := newKDF(bytes.NewReader(counted(16)))
	if err != nil || k.check() != nil {
		t.Errorf("our own parameters: %v, %v", err, k.check())
	}
}
