package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/foreverfs/forever/internal/fail"
)

// maxAnswer bounds an answer that is read whole, in bytes.
const maxAnswer = 16 << 20

// Client talks to the node of one data directory. It may be used from several
// goroutines.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a client of the node in dir, running or not.
func NewClient(dir string) *Client {
	t := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
		DisableCompression: true,
		WriteBufferSize:    256 << 10,
		ReadBufferSize:     256 << 10,
	}
	return &Client{dir: dir, http: &http.Client{Transport: t}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Alive reports whether a node answers.
func (c *Client) Alive(ctx context.Context) bool {
	conn, err := dial(ctx, c.dir)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	unraw(&st.DataDir, st.RawDataDir)
	return st, err
}

// Invite asks for an invite line.
func (c *Client) Invite(ctx context.Context, req InviteRequest) (string, error) {
	var a textAnswer
	err := c.call(ctx, http.MethodPost, "/v1/invite", req, &a)
	return a.Text, err
}

// ExportKey asks for a new recovery phrase.
func (c *Client) ExportKey(ctx context.Context) (string, error) {
	var a textAnswer
	err := c.call(ctx, http.MethodPost, "/v1/key", struct{}{}, &a)
	return a.Text, err
}

// RenameDevice gives a device another name.
func (c *Client) RenameDevice(ctx context.Context, req DeviceRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/devices/rename", req, &textAnswer{})
}

// RevokeDevice throws a device out.
func (c *Client) RevokeDevice(ctx context.Context, req DeviceRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/devices/revoke", req, &textAnswer{})
}

// Policy asks for the volume's settings.
func (c *Client) Policy(ctx context.Context) (list []Setting, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/config", nil, &list)
	return list, err
}

// SetPolicy changes one of them.
func (c *Client) SetPolicy(ctx context.Context, key, value string) error {
	return c.call(ctx, http.MethodPost, "/v1/config", Setting{Key: key, Value: value}, &textAnswer{})
}

// Quota asks how much of the disk the volume may use, and uses.
func (c *Client) Quota(ctx context.Context) (q Quota, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/quota", nil, &q)
	return q, err
}

// SetQuota changes that, in bytes; 0 means no limit.
func (c *Client) SetQuota(ctx context.Context, bytes int64) error {
	return c.call(ctx, http.MethodPost, "/v1/quota", Quota{Limit: bytes}, &textAnswer{})
}

// Remove removes the entry at path.
func (c *Client) Remove(ctx context.Context, path string, recursive bool) error {
	q := url.Values{"path": {path}, "recursive": {strconv.FormatBool(recursive)}}
	return c.call(ctx, http.MethodDelete, "/v1/file?"+q.Encode(), nil, &event{})
}

// History asks what a path had.
func (c *Client) History(ctx context.Context, path string) (h History, err error) {
	err = c.stream(ctx, http.MethodGet, "/v1/history?"+url.Values{"path": {path}}.Encode(), nil, func(e event) error {
		if e.Content != nil {
			h.Contents = append(h.Contents, *e.Content)
		}
		if e.Past != nil {
			unraw(&e.Past.Name, e.Past.Raw)
			h.Entries = append(h.Entries, *e.Past)
		}
		return nil
	})
	return h, err
}

// Restore brings back what a path was.
func (c *Client) Restore(ctx context.Context, req RestoreRequest) (done Restored, err error) {
	q := url.Values{"path": {req.Path}, "to": {req.To}} // JSON would not keep what is not UTF-8
	err = c.call(ctx, http.MethodPost, "/v1/restore?"+q.Encode(), req, &done)
	return done, err
}

// Put streams r into the file at path.
func (c *Client) Put(ctx context.Context, path string, opts PutOptions, r io.Reader) error {
	q := url.Values{"path": {path}, "mode": {strconv.FormatUint(uint64(opts.Mode), 8)}}
	src := &source{r: r}
	resp, err := c.do(ctx, http.MethodPut, "/v1/file?"+q.Encode(), src)
	if cause := src.failure.Load(); cause != nil {
		return &fail.Error{Kind: fail.Path, Op: "read input", Err: *cause}
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// source remembers why reading failed: the error of the request says only that
// the body ended early. A request that was answered early may go on reading.
type source struct {
	r       io.Reader
	failure atomic.Pointer[error]
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.failure.Store(&err)
	}
	return n, err
}

// Get streams the file at path into what to returns for its mode. Nothing is asked of to if the file cannot be read.
func (c *Client) Get(ctx context.Context, path string, to func(mode uint32) (io.Writer, error)) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/file?"+url.Values{"path": {path}}.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	mode, err := strconv.ParseUint(resp.Header.Get(modeHeader), 8, 32)
	if err != nil {
		mode = 0o666 // a node of before this header
	}
	w, err := to(uint32(mode) & 0o777)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(onlyWriter{w}, onlyReader{resp.Body}, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if text := resp.Trailer.Get(errorTrailer); text != "" {
		return decodeError([]byte(text))
	}
	return nil
}

type onlyReader struct{ io.Reader }

// List calls fn for each entry at path; see Files.
func (c *Client) List(ctx context.Context, path string, fn func(Entry) error) error {
	return c.stream(ctx, http.MethodGet, "/v1/list?"+url.Values{"path": {path}}.Encode(), nil, func(e event) error {
		if e.Entry == nil {
			return nil
		}
		unraw(&e.Entry.Name, e.Entry.Raw)
		unraw(&e.Entry.Target, e.Entry.RawTarget)
		return fn(*e.Entry)
	})
}

// Wait returns when replication is as far as asked, or ctx is done.
func (c *Client) Wait(ctx context.Context, req WaitRequest, fn func(Progress)) error {
	return c.stream(ctx, http.MethodPost, "/v1/wait", req, func(e event) error {
		if e.Progress != nil {
			fn(*e.Progress)
		}
		return nil
	})
}

// Scrub has the node verify everything on its disk.
func (c *Client) Scrub(ctx context.Context, fn func(ScrubProgress)) (rep ScrubReport, err error) {
	var problems []string
	err = c.stream(ctx, http.MethodPost, "/v1/scrub", struct{}{}, func(e event) error {
		if e.Scrub != nil {
			fn(*e.Scrub)
		}
		if e.Problem != "" {
			problems = append(problems, e.Problem)
		}
		if e.Scrubbed != nil {
			rep = *e.Scrubbed
		}
		return nil
	})
	rep.Problems = problems
	return rep, err
}

func (c *Client) call(ctx context.Context, method, path string, req, into any) error {
	body, err := encode(req)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	return nil
}

func encode(req any) (io.Reader, error) {
	if req == nil {
		return nil, nil
	}
	text, err := json.Marshal(req)
	return bytes.NewReader(text), err
}

func (c *Client) stream(ctx context.Context, method, path string, req any, fn func(event) error) error {
	body, err := encode(req)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read the node's answer: %w", err)
		}
		switch {
		case e.Error != nil:
			return e.Error.err()
		case e.Done:
			return nil
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return nodeGone(c.dir, lines.Err())
}

// do sends one request and returns an answer that is no failure.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://forever"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRequest))
	if err != nil {
		return nil, nodeGone(c.dir, err)
	}
	var e event
	if json.Unmarshal(text, &e) != nil || e.Error == nil {
		return nil, &fail.Error{Kind: fail.Internal, Op: "the node in " + c.dir + " does not know this request",
			Next: "it may be another version of fsmount: restart it"}
	}
	return nil, e.Error.err()
}

func decodeError(text []byte) error {
	var w wireError
	if err := json.Unmarshal(text, &w); err != nil {
		return fmt.Errorf("read the node's error: %w", err)
	}
	return w.err()
}

// explain says in our words why the socket did not answer.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return notRunning(c.dir)
	case errors.Is(err, os.ErrPermission):
		return &fail.Error{Kind: fail.NotRunning, Op: "the node in " + c.dir + " belongs to another user", Next: "run this command as that user"}
	}
	return nodeGone(c.dir, err)
}

// ErrNoNode says that no node runs on a data directory: nothing was sent.
var ErrNoNode = errors.New("no node runs on it")

func notRunning(dir string) error {
	return &fail.Error{Kind: fail.NotRunning, Op: "data directory " + dir, Err: ErrNoNode,
		Next: "start one with fsmount MOUNTPOINT or fsmount serve, or name another with --data"}
}

func nodeGone(dir string, err error) error {
	return &fail.Error{Kind: fail.NotRunning, Op: "the node in " + dir + " went away", Err: err, Next: "see its log and start it again"}
}
