package accept

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestCopySpeed writes on one mount and stops the clock when the other device has everything on its
// disk, verified. The yardstick is a cp and a plain TLS copy, from disk to disk, in the same run.
func TestCopySpeed(t *testing.T) {
	size := scale(int64(128<<20), 1<<30)
	dir := t.TempDir()
	a, b := pair(t)
	inStep(t, a, b)
	var ratios []float64
	for i := range scale(1, 3) {
		src := filepath.Join(dir, fmt.Sprintf("src%d", i)) // equal blocks would be copied once
		writeRandom(t, src, size)
		cp := timed(func() { run(t, "", "cp", src, src+".cp") })
		plain := timed(func() { copyOverTLS(t, src, src+".tls") })
		wrote := timed(func() { run(t, "", "cp", src, filepath.Join(a.mnt, fmt.Sprintf("big%d", i))) })
		ours := wrote + timed(func() { a.command("wait", "--timeout", "5m") })
		ratios = append(ratios, ours.Seconds()/(cp+plain).Seconds())
		t.Logf("%d MiB: written in %v, on the other disk after %v; cp %v and a copy over TLS %v: %.2f of both", size>>20, wrote, ours, cp, plain, ratios[i])
	}
	slices.Sort(ratios)
	if r := ratios[len(ratios)/2]; full && r > 3 {
		t.Errorf("took %.2f of a cp and a plain copy", r)
	}

	must(t, os.Mkdir(filepath.Join(a.mnt, "many"), 0o755))
	content := make([]byte, 4096)
	const files = 2000
	name := func(n *node, i int) string { return filepath.Join(n.mnt, "many", fmt.Sprintf("%04d", i)) }
	wrote := timed(func() {
		for i := range files {
			copy(content, fmt.Sprintf("%08d", i))
			must(t, os.WriteFile(name(a, i), content, 0o644))
		}
	})
	closed := time.Now()
	a.command("wait", "--timeout", "1m")
	late := time.Since(closed)
	for i := range files {
		copy(content, fmt.Sprintf("%08d", i))
		if got, err := os.ReadFile(name(b, i)); err != nil || string(got) != string(content) {
			t.Fatalf("file %d on the other mount: %v", i, err)
		}
	}
	t.Logf("%d files of 4 KiB, written in %v: on the other disk %v after the last close", files, wrote, late)
	if late > scale(10*time.Second, time.Second) {
		t.Errorf("on the other disk only %v after the last close", late)
	}
}

// copyOverTLS copies a file through a TLS connection to another, and flushes that.
func copyOverTLS(t testing.TB, from, to string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	cert, err := x509.CreateCertificate(nil, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, pub, key)
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	must(t, err)
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			sent <- err
			return
		}
		f, err := os.Open(from)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{f}, make([]byte, 256<<10))
			_ = f.Close()
		}
		_ = c.Close()
		sent <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	must(t, err)
	defer c.Close()
	f, err := os.Create(to)
	must(t, err)
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{c}, make([]byte, 256<<10))
	must(t, err)
	must(t, f.Sync())
	must(t, <-sent)
}
