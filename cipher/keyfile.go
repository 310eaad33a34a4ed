package cipher

import (
	"bytes"
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
)

var (
	// ErrKeyFile is returned for bytes that are no key file, or a damaged one.
	ErrKeyFile = errors.New("not a key file, or damaged")
	// ErrPassphrase is returned when a key file needs another passphrase than the one
	// given, or one at all.
	ErrPassphrase = errors.New("wrong or missing passphrase")
)

// DiskKey is the key under which a device encrypts what it keeps for itself.
type DiskKey [32]byte

// String does not show the key.
func (DiskKey) String() string { return "disk key" }

// GoString does as String.
func (k DiskKey) GoString() string { return k.String() }

const (
	keyMagic  = "FVRKEY\r\n" // a transfer that changes line ends shows at once
	keyFormat = 1

	kdfNone   = 0
	kdfArgon2 = 1

	saltSize   = 16
	secretSize = deviceSize + len(DiskKey{})
	keyCheck   = 16

	keyHeader    = len(keyMagic) + 2
	argon2Header = keyHeader + 4 + 4 + 1 + saltSize
)

// kdf are the parameters of argon2id.
type kdf struct {
	time, memory uint32 // passes, KiB
	threads      uint8
	salt         [saltSize]byte
}

// Parameters from a file that are out of these bounds would cost more time or
// memory than any file of ours does.
const (
	maxKDFTime    = 64
	maxKDFMemory  = 1 << 20 // KiB: 1 GiB
	maxKDFThreads = 64
)

// newKDF returns the parameters for new files, the second choice of RFC 9106: 64
// MiB and a tenth of a second or two.
func newKDF(rand io.Reader) (kdf, error) {
	k := kdf{time: 3, memory: 64 << 10, threads: 4}
	_, err := io.ReadFull(rand, k.salt[:])
	return k, err
}

func (k *kdf) check() error {
	if k.time == 0 || k.time > maxKDFTime || k.memory < 8*uint32(k.threads) || k.memory > maxKDFMemory ||
		k.threads == 0 || k.threads > maxKDFThreads {
		return fmt.Errorf("%w: argon2id with %d passes, %d KiB, %d threads", ErrKeyFile, k.time, k.memory, k.threads)
	}
	return nil
}

// aead returns the cipher for the one file with this salt.
func (k *kdf) aead(passphrase []byte) (stdcipher.AEAD, error) {
	block, err := aes.NewCipher(argon2.IDKey(passphrase, k.salt[:], k.time, k.memory, k.threads, 32))
	if err != nil {
		return nil, fmt.Errorf("make AES: %w", err)
	}
	return stdcipher.NewGCM(block)
}

// MarshalKeyFile returns the bytes of a key file with the device's secrets and
// disk's key, under the passphrase if it is not empty. Without one, who reads the
// file has the keys.
func MarshalKeyFile(device *Device, disk DiskKey, passphrase []byte) ([]byte, error) {
	k, err := newKDF(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("write key file: %w", err)
	}
	b, err := marshalKeyFile(device, disk, passphrase, k)
	if err != nil {
		return nil, fmt.Errorf("write key file: %w", err)
	}
	return b, nil
}

func marshalKeyFile(device *Device, disk DiskKey, passphrase []byte, k kdf) ([]byte, error) {
	secrets := append(device.Marshal(), disk[:]...)
	b := append([]byte(keyMagic), keyFormat, kdfNone)
	if len(passphrase) == 0 {
		b = append(b, secrets...)
		return append(b, keySum(b)...), nil
	}
	b[len(b)-1] = kdfArgon2
	b = binary.BigEndian.AppendUint32(b, k.time)
	b = binary.BigEndian.AppendUint32(b, k.memory)
	b = append(b, k.threads)
	b = append(b, k.salt[:]...)
	aead, err := k.aead(passphrase)
	if err != nil {
		return nil, err
	}
	b = aead.Seal(b, zeroNonce[:], secrets, slices.Clone(b))
	return append(b, keySum(b)...), nil
}

func keySum(b []byte) []byte {
	sum := make([]byte, keyCheck)
	blake3.DeriveKey("forever 1 key file checksum", b, sum)
	return sum
}

// ParseKeyFile reads what MarshalKeyFile wrote. A file that has no passphrase opens
// with any. Errors wrap ErrKeyFile, or ErrPassphrase if the file is whole but
// needs another passphrase, or one at all.
func ParseKeyFile(b, passphrase []byte) (*Device, DiskKey, error) {
	secrets, err := openKeyFile(b, passphrase)
	if err != nil {
		return nil, DiskKey{}, fmt.Errorf("read key file: %w", err)
	}
	device, err := ParseDevice(secrets[:deviceSize])
	if err != nil {
		return nil, DiskKey{}, fmt.Errorf("read key file: %w: %w", ErrKeyFile, err)
	}
	return device, DiskKey(secrets[deviceSize:]), nil
}

// openKeyFile returns the secrets of a key file.
func openKeyFile(b, passphrase []byte) ([]byte, error) {
	if len(b) < keyHeader || !bytes.HasPrefix(b, []byte(keyMagic)) {
		return nil, ErrKeyFile
	}
	if b[keyHeader-2] != keyFormat {
		return nil, fmt.Errorf("%w: format %d; this program knows %d", ErrKeyFile, b[keyHeader-2], keyFormat)
	}
	with := b[keyHeader-1]
	size := keyHeader + secretSize + keyCheck
	if with == kdfArgon2 {
		size = argon2Header + secretSize + tagSize + keyCheck
	}
	if with > kdfArgon2 || len(b) != size {
		return nil, fmt.Errorf("%w: %d bytes, protection %d", ErrKeyFile, len(b), with)
	}
	body, sum := b[:len(b)-keyCheck], b[len(b)-keyCheck:]
	if !bytes.Equal(keySum(body), sum) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrKeyFile)
	}
	if with == kdfNone {
		return body[keyHeader:], nil
	}
	return openSecrets(body, passphrase)
}

// openSecrets opens the secrets of a file with a passphrase.
func openSecrets(body, passphrase []byte) ([]byte, error) {
	p := body[keyHeader:]
	k := kdf{time: binary.BigEndian.Uint32(p), memory: binary.BigEndian.Uint32(p[4:]), threads: p[8], salt: [saltSize]byte(p[9:])}
	if err := k.check(); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it needs one", ErrPassphrase)
	}
	aead, err := k.aead(passphrase)
	if err != nil {
		return nil, err
	}
	secrets, err := aead.Open(nil, zeroNonce[:], body[argon2Header:], body[:argon2Header])
	if err != nil {
		return nil, ErrPassphrase
	}
	return secrets, nil
}
