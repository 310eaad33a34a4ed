package cipher

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestInvite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := func(n int, what string) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, what) }
		want := Invite{
			Volume: VolumeID(bytesOf(16, "volume")), Device: DeviceID(bytesOf(32, "device")), Secret: [16]byte(bytesOf(16, "secret")),
			Addrs: rapid.SliceOfN(rapid.SampledFrom([]string{"a:1", "[::1]:2", "example.org:4747", strings.Repeat("x", MaxAddr-2) + ":1"}),
				1, MaxAddrs).Draw(t, "addrs"),
			Expires: time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "expires"), 0),
			Role:    rapid.SampledFrom([]Role{RoleMember, RoleReplica}).Draw(t, "role"),
		}
		if err := want.Check(); err != nil {
			t.Fatal(err)
		}
		line := want.String()
		if strings.ContainsAny(line, " \n\t") {
			t.Fatalf("not one word: %q", line)
		}
		if got, err := ParseInvite(" " + line + "\n"); err != nil || !equalInvites(got, want) {
			t.Fatalf("reads as %#v: %v", got, err)
		}
		at := rapid.IntRange(0, len(line)-1).Draw(t, "at")
		if _, err := ParseInvite(line[:at]); !errors.Is(err, ErrInvite) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		changed := line[:at] + string(line[at]^1) + line[at+1:]
		if _, err := ParseInvite(changed); !errors.Is(err, ErrInvite) {
			t.Fatalf("changed at %d: %v", at, err)
		}
	})
}

func TestWrongInvites(t *testing.T) {
	with := func(change func(*Invite)) string {
		i := fixedInvite()
		change(&i)
		return i.String()
	}
	for name, line := range map[string]string{
		"nothing":         "",
		"a word":          "hello",
		"prefix":          "forever1-",
		"garbled":         "forever1-garbled",
		"newer":           strings.Replace(with(func(*Invite) {}), "forever1-", "forever2-", 1),
		"role 0":          with(func(i *Invite) { i.Role = 0 }),
		"role 3":          with(func(i *Invite) { i.Role = 3 }),
		"no address":      with(func(i *Invite) { i.Addrs = nil }),
		"many addresses":  with(func(i *Invite) { i.Addrs = make([]string, 17) }),
		"300 addresses":   with(func(i *Invite) { i.Addrs = make([]string, 300) }),
		"long address":    with(func(i *Invite) { i.Addrs = []string{strings.Repeat("x", 254) + ":1"} }),
		"endless address": with(func(i *Invite) { i.Addrs = []string{strings.Repeat("x", 70000) + ":1"} }),
		"no port":         with(func(i *Invite) { i.Addrs = []string{"example.org"} }),
		"empty port":      with(func(i *Invite) { i.Addrs = []string{"example.org:"} }),
		"empty host":      with(func(i *Invite) { i.Addrs = []string{":4747"} }),
		"control bytes":   with(func(i *Invite) { i.Addrs = []string{"\x1b[31m:1"} }),
		"too long":        "forever1-" + strings.Repeat("A", 100000),
	} {
		if _, err := ParseInvite(line); !errors.Is(err, ErrInvite) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The checksum is right, what it covers is not.
	for name, b := range map[string][]byte{
		"address cut": fixedInviteBytes(t, func(b []byte) []byte { return b[:len(b)-1] }),
		"more bytes":  fixedInviteBytes(t, func(b []byte) []byte { return append(b, 0) }),
	} {
		line := invitePrefix + base64.RawURLEncoding.EncodeToString(append(b, inviteSum(b)...))
		if _, err := ParseInvite(line); !errors.Is(err, ErrInvite) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fixedInviteBytes returns the bytes of an invite before its checksum, changed.
func fixedInviteBytes(t *testing.T, change func([]byte) []byte) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(fixedInvite().String(), invitePrefix))
	if err != nil {
		t.Fatal(err)
	}
	return change(b[:len(b)-inviteCheck])
}
