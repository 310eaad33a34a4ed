package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/fail"
)

// keyFileMax is more than a key file ever has, in bytes.
const keyFileMax = 64 << 10

// keys are what makes this device itself: its identity, and the key that its own
// disk is sealed under.
type keys struct {
	device *cipher.Device
	disk   cipher.DiskKey
}

// newKeys makes keys and writes the key file; it is durable on return.
func newKeys(d *dataDir, passphrase []byte) (keys, error) {
	var k keys
	var err error
	if k.device, err = cipher.NewDevice(rand.Reader); err != nil {
		return k, fmt.Errorf("make device key: %w", err)
	}
	_, _ = rand.Read(k.disk[:])
	text, err := cipher.MarshalKeyFile(k.device, k.disk, passphrase)
	if err != nil {
		return k, fmt.Errorf("seal key file: %w", err)
	}
	return k, writeFile(d.path, keyName, text)
}

// NeedsPassphrase reports whether the key file in dir is protected. It takes no lock.
func NeedsPassphrase(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, keyName))
	if err != nil {
		return false
	}
	_, _, err = cipher.ParseKeyFile(text, nil)
	return errors.Is(err, cipher.ErrPassphrase)
}

// loadKeys reads the key file. ask is called only if a passphrase is needed.
func loadKeys(d *dataDir, ask func(creating bool) ([]byte, error)) (keys, error) {
	file, err := os.Open(filepath.Join(d.path, keyName))
	if err != nil {
		return keys{}, keyError(d, plain(err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, keyFileMax))
	if err != nil {
		return keys{}, keyError(d, plain(err))
	}
	var k keys
	k.device, k.disk, err = cipher.ParseKeyFile(text, nil)
	if errors.Is(err, cipher.ErrPassphrase) {
		var passphrase []byte
		if passphrase, err = ask(false); err != nil {
			return keys{}, err
		}
		k.device, k.disk, err = cipher.ParseKeyFile(text, passphrase)
	}
	if errors.Is(err, cipher.ErrPassphrase) {
		return keys{}, &fail.Error{Kind: fail.Key, Op: "the passphrase of " + file.Name() + " is wrong", Next: "try again"}
	}
	if err != nil {
		return keys{}, keyError(d, err)
	}
	return k, nil
}

func keyError(d *dataDir, err error) error {
	return &fail.Error{Kind: fail.Key, Op: "read key file " + d.join(keyName), Err: words(err),
		Next: "put it back from a copy, or let this device join anew with another --data"}
}
