package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/fail"
)

// fakeNode answers from memory.
type fakeNode struct {
	files   map[string][]byte
	readErr error  // fails a Get after the content
	refuse  func() // called by Put, which then stores nothing
	asked   []string
}

func (f *fakeNode) Status(context.Context) (Status, error) {
	return Status{Volume: "v", Devices: []Device{{Name: "a", Self: true}}}, nil
}

func (f *fakeNode) Wait(ctx context.Context, req WaitRequest, fn func(Progress)) error {
	fn(Progress{Want: req.Replicas, MissingBytes: 10})
	if req.Replicas > 1 {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (f *fakeNode) Invite(_ context.Context, req InviteRequest) (string, error) {
	return "invite " + req.Expires.String(), nil
}

func (f *fakeNode) ExportKey(context.Context) (string, error) {
	return "", &fail.Error{Kind: fail.Keyless, Op: "no key", Next: "ask a member"}
}

func (f *fakeNode) RenameDevice(_ context.Context, req DeviceRequest) error {
	f.asked = append(f.asked, "rename "+req.Name+" "+req.NewName)
	return nil
}

func (f *fakeNode) RevokeDevice(_ context.Context, req DeviceRequest) error {
	return &fail.Error{Kind: fail.Usage, Op: "there is no device " + req.Name}
}

func (f *fakeNode) Policy(context.Context) ([]Setting, error) {
	return []Setting{{Key: "replicas", Value: "2", Set: true, About: "how many"}}, nil
}

func (f *fakeNode) SetPolicy(_ context.Context, key, value string) error {
	f.asked = append(f.asked, "set "+key+" "+value)
	return nil
}

func (f *fakeNode) Quota(context.Context) (Quota, error) { return Quota{Limit: 5, Used: 3}, nil }

func (f *fakeNode) SetQuota(_ context.Context, bytes int64) error {
	f.asked = append(f.asked, fmt.Sprint("quota ", bytes))
	return nil
}

func (f *fakeNode) Scrub(_ context.Context, fn func(ScrubProgress)) (ScrubReport, error) {
	fn(ScrubProgress{Chunks: 1, Total: 2})
	return ScrubReport{Chunks: 2, Problems: slices.Repeat([]string{strings.Repeat("p", 200)}, 10_000)}, nil
}

func (f *fakeNode) List(_ context.Context, path string, fn func(Entry) error) error {
	for i := range 3000 {
		if err := fn(Entry{Name: path + strings.Repeat("x", i%50), Kind: "file"}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeNode) Open(_ context.Context, path string) (io.ReadCloser, uint32, error) {
	b, ok := f.files[path]
	if !ok {
		return nil, 0, &fail.Error{Kind: fail.Path, Op: path + " does not exist"}
	}
	r := io.Reader(bytes.NewReader(b))
	if f.readErr != nil {
		r = io.MultiReader(r, failingReader{f.readErr})
	}
	return io.NopCloser(r), 0o640, nil
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func (f *fakeNode) Put(_ context.Context, path string, opts PutOptions, r io.Reader) error {
	if f.refuse != nil {
		f.refuse()
		return &fail.Error{Kind: fail.NoSpace, Op: "the disk is full"}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.files[path] = b
	return nil
}

func (f *fakeNode) Remove(_ context.Context, path string, recursive bool) error {
	if !recursive {
		return errors.New("not recursive")
	}
	delete(f.files, path)
	return nil
}

func (f *fakeNode) History(_ context.Context, path string) (h History, err error) {
	if path == "large" {
		for i := range 2000 {
			h.Entries = append(h.Entries, PastEntry{Name: strings.Repeat("n", 10<<10) + fmt.Sprint(i) + "\xff"})
		}
		return h, nil
	}
	if _, ok := f.files[path]; !ok {
		return History{}, &fail.Error{Kind: fail.Path, Op: path + " never was"}
	}
	return History{Contents: []PastContent{{Version: "0123abcd", Size: int64(len(f.files[path]))}}}, nil
}

func (f *fakeNode) Restore(_ context.Context, req RestoreRequest) (Restored, error) {
	f.files[req.To] = f.files[req.Path]
	return Restored{Files: 1}, nil
}

// start serves a fake node on the socket of dir.
func start(t *testing.T, dir string) (*fakeNode, *Client) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNode{files: map[string][]byte{}}
	srv := &http.Server{Handler: Handler(f, f)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	c := NewClient(dir)
	t.Cleanup(func() { c.Close(); srv.Close(); <-done })
	return f, c
}

func TestRequests(t *testing.T) {
	f, c := start(t, t.TempDir())
	ctx := t.Context()
	if st, err := c.Status(ctx); err != nil || st.Volume != "v" || len(st.Devices) != 1 {
		t.Errorf("Status = %+v, %v", st, err)
	}
	if line, err := c.Invite(ctx, InviteRequest{Expires: time.Minute}); err != nil || line != "invite 1m0s" {
		t.Errorf("Invite = %q, %v", line, err)
	}
	_, err := c.ExportKey(ctx)
	if fail.KindOf(err) != fail.Keyless || err.Error() != "no key; ask a member" {
		t.Errorf("ExportKey: %v", err)
	}
	if err := c.RenameDevice(ctx, DeviceRequest{Name: "a", NewName: "b"}); err != nil {
		t.Error(err)
	}
	if err := c.RevokeDevice(ctx, DeviceRequest{Name: "x"}); fail.KindOf(err) != fail.Usage {
		t.Errorf("RevokeDevice: %v", err)
	}
	if err := c.SetPolicy(ctx, "keep", "30d"); err != nil {
		t.Error(err)
	}
	if list, err := c.Policy(ctx); err != nil || len(list) != 1 || !list[0].Set {
		t.Errorf("Policy = %+v, %v", list, err)
	}
	var seen []ScrubProgress
	if rep, err := c.Scrub(ctx, func(p ScrubProgress) { seen = append(seen, p) }); err != nil || rep.Chunks != 2 || len(seen) != 1 || len(rep.Problems) != 10_000 {
		t.Errorf("Scrub = %d chunks, %d problems, %v, %+v", rep.Chunks, len(rep.Problems), err, seen)
	}
	if q, err := c.Quota(ctx); err != nil || q != (Quota{Limit: 5, Used: 3}) {
		t.Errorf("Quota = %+v, %v", q, err)
	}
	if err := c.SetQuota(ctx, 7); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"rename a b", "set keep 30d", "quota 7"}, f.asked); diff != "" {
		t.Error(diff)
	}
	content := bytes.Repeat([]byte("0123456789"), 1<<18)
	if err := c.Put(ctx, "a b/ü", PutOptions{Mode: 0o600}, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	into := func(w io.Writer) func(uint32) (io.Writer, error) {
		return func(mode uint32) (io.Writer, error) {
			if mode != 0o640 {
				t.Errorf("Get: mode %o", mode)
			}
			return w, nil
		}
	}
	if err := c.Get(ctx, "a b/ü", into(&got)); err != nil || !bytes.Equal(got.Bytes(), content) {
		t.Errorf("Get: %d bytes, %v", got.Len(), err)
	}
	if err := c.Remove(ctx, "a b/ü", true); err != nil || len(f.files) != 0 {
		t.Errorf("Remove: %v, %d files left", err, len(f.files))
	}
	if err := c.Get(ctx, "gone", nil); fail.KindOf(err) != fail.Path {
		t.Errorf("Get(gone): %v", err)
	}
	n := 0
	if err := c.List(ctx, "/", func(Entry) error { n++; return nil }); err != nil || n != 3000 {
		t.Errorf("List: %d entries, %v", n, err)
	}
}

func TestFailuresInTheMiddle(t *testing.T) {
	f, c := start(t, t.TempDir())
	f.files["x"] = make([]byte, 3<<20)
	f.readErr = &fail.Error{Kind: fail.Unavailable, Op: "chunk 5 is with nobody"}
	if err := c.Get(t.Context(), "x", func(uint32) (io.Writer, error) { return io.Discard, nil }); fail.KindOf(err) != fail.Unavailable {
		t.Errorf("Get of a file that fails midway: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("half"), failingReader{os.ErrClosed})
	if err := c.Put(t.Context(), "y", PutOptions{Mode: 0o600}, broken); fail.KindOf(err) != fail.Path {
		t.Errorf("Put from a broken reader: %v", err)
	}
	if _, ok := f.files["y"]; ok {
		t.Error("half a file was stored")
	}
}

// slowInput ends with an error, but not before it may.
type slowInput struct {
	left int
	fail <-chan struct{}
}

func (r *slowInput) Read(p []byte) (int, error) {
	if r.left > 0 {
		n := min(r.left, len(p))
		r.left -= n
		return n, nil
	}
	<-r.fail
	return 0, os.ErrClosed
}

// The node may refuse what is still being read from somewhere, and that may fail just then.
func TestPutIsRefusedWhileItReads(t *testing.T) {
	f, c := start(t, t.TempDir())
	for range 20 {
		failing := make(chan struct{})
		f.refuse = func() { time.AfterFunc(10*time.Millisecond, func() { close(failing) }) } // at about the time of the answer
		in := &slowInput{left: 300 << 10, fail: failing}                                     // the server reads 256 KiB before it answers
		err := c.Put(t.Context(), "y", PutOptions{Mode: 0o600}, in)
		if kind := fail.KindOf(err); kind != fail.NoSpace && kind != fail.Path {
			t.Errorf("Put: %v", err)
		}
	}
}

func TestWait(t *testing.T) {
	_, c := start(t, t.TempDir())
	var seen []Progress
	if err := c.Wait(t.Context(), WaitRequest{Replicas: 1}, func(p Progress) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Progress{{Want: 1, MissingBytes: 10}}, seen); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Wait(ctx, WaitRequest{Replicas: 2}, func(Progress) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait with a deadline: %v", err)
	}
}

func TestNoNode(t *testing.T) {
	dir := t.TempDir()
	c := NewClient(dir)
	_, err := c.Status(t.Context())
	if fail.KindOf(err) != fail.NotRunning {
		t.Errorf("no socket: %v", err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); fail.KindOf(err) != fail.NotRunning {
		t.Errorf("stale socket: %v", err)
	}
}

func TestLongDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, c := start(t, dir)
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"kind":"path","message":"m","next":"n"}`))
	f.Add([]byte(`{"kind":5}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := decodeError(text); err == nil || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q gives %v", text, err)
		}
	})
}

func TestHistoryAndRestore(t *testing.T) {
	f, c := start(t, t.TempDir())
	f.files["old"] = []byte("content")
	h, err := c.History(t.Context(), "old")
	if err != nil || len(h.Contents) != 1 || h.Contents[0].Size != 7 {
		t.Fatalf("history: %+v, %v", h, err)
	}
	if _, err := c.History(t.Context(), "other"); fail.KindOf(err) != fail.Path {
		t.Errorf("history of what never was: %v", err)
	}
	h, err = c.History(t.Context(), "large")
	if err != nil || len(h.Entries) != 2000 || !strings.HasSuffix(h.Entries[1999].Name, "n1999\xff") {
		t.Errorf("history of a large directory: %d entries, %v", len(h.Entries), err)
	}
	done, err := c.Restore(t.Context(), RestoreRequest{Path: "old", Version: "0123abcd", To: "new"})
	if err != nil || done.Files != 1 || string(f.files["new"]) != "content" {
		t.Errorf("restore: %+v, %v", done, err)
	}
}
