package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/foreverfs/forever/internal/fail"
)

// maxRequest bounds the JSON of a request, in bytes; file bodies are streamed.
const maxRequest = 64 << 10

// Node is what the handler needs of a running node.
type Node interface {
	// Status returns at once; it asks no other device.
	Status(ctx context.Context) (Status, error)
	// Wait returns when everything published so far is held by as many other
	// devices as asked; fn is told of progress from one goroutine.
	Wait(ctx context.Context, req WaitRequest, fn func(Progress)) error
	// Invite returns the one line to hand to a newcomer.
	Invite(ctx context.Context, req InviteRequest) (string, error)
	// RenameDevice gives a device another name.
	RenameDevice(ctx context.Context, req DeviceRequest) error
	// RevokeDevice throws a device out.
	RevokeDevice(ctx context.Context, req DeviceRequest) error
	// Policy returns the volume's settings.
	Policy(ctx context.Context) ([]Setting, error)
	// SetPolicy changes one of them.
	SetPolicy(ctx context.Context, key, value string) error
	// Quota returns how much of the disk this volume may use here, and uses.
	Quota(ctx context.Context) (Quota, error)
	// SetQuota changes that, in bytes; 0 means no limit.
	SetQuota(ctx context.Context, bytes int64) error
	// Scrub verifies everything on this disk, and mends what it can; fn is told of progress by one goroutine at a time.
	Scrub(ctx context.Context, fn func(ScrubProgress)) (ScrubReport, error)
	// ExportKey mints a recovery phrase and retires the one before.
	ExportKey(ctx context.Context) (string, error)
}

// Files is the tree of a running node, by path. Paths begin at the root of the
// volume, with or without a slash.
type Files interface {
	// List calls fn for the entry at path, or for those inside it if it is a
	// directory, sorted by name.
	List(ctx context.Context, path string, fn func(Entry) error) error
	// Open returns the content of a file, which the caller closes, and its mode, 0777 at most.
	Open(ctx context.Context, path string) (content io.ReadCloser, mode uint32, err error)
	// Put replaces the file at path by all of r, or leaves it as it was. The
	// content is durable on return.
	Put(ctx context.Context, path string, opts PutOptions, r io.Reader) error
	// Remove removes the entry at path; a directory with what is inside only
	// if recursive.
	Remove(ctx context.Context, path string, recursive bool) error
	// History returns what a path had, also one that is gone.
	History(ctx context.Context, path string) (History, error)
	// Restore brings back what a path was. What it shows now goes into its history.
	Restore(ctx context.Context, req RestoreRequest) (Restored, error)
}

// Handler serves the control protocol.
func Handler(n Node, f Files) http.Handler {
	s := &server{node: n, files: f}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("POST /v1/wait", s.wait)
	mux.HandleFunc("POST /v1/invite", s.invite)
	mux.HandleFunc("POST /v1/key", s.exportKey)
	mux.HandleFunc("POST /v1/devices/rename", s.device(n.RenameDevice))
	mux.HandleFunc("POST /v1/devices/revoke", s.device(n.RevokeDevice))
	mux.HandleFunc("GET /v1/config", s.policy)
	mux.HandleFunc("POST /v1/config", s.setPolicy)
	mux.HandleFunc("POST /v1/scrub", s.scrub)
	mux.HandleFunc("GET /v1/quota", s.quota)
	mux.HandleFunc("POST /v1/quota", s.setQuota)
	mux.HandleFunc("GET /v1/list", s.list)
	mux.HandleFunc("GET /v1/file", s.get)
	mux.HandleFunc("PUT /v1/file", s.put)
	mux.HandleFunc("DELETE /v1/file", s.remove)
	mux.HandleFunc("GET /v1/history", s.history)
	mux.HandleFunc("POST /v1/restore", s.restore)
	return mux
}

type server struct {
	node  Node
	files Files
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.node.Status(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	st.RawDataDir = rawName(st.DataDir)
	writeJSON(w, http.StatusOK, st)
}

func (s *server) invite(w http.ResponseWriter, r *http.Request) {
	var req InviteRequest
	if !readRequest(w, r, &req) {
		return
	}
	line, err := s.node.Invite(r.Context(), req)
	answerText(w, line, err)
}

func (s *server) exportKey(w http.ResponseWriter, r *http.Request) {
	phrase, err := s.node.ExportKey(r.Context())
	answerText(w, phrase, err)
}

// device serves a request about a device.
func (s *server) device(do func(context.Context, DeviceRequest) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req DeviceRequest
		if readRequest(w, r, &req) {
			answerText(w, "", do(r.Context(), req))
		}
	}
}

func (s *server) policy(w http.ResponseWriter, r *http.Request) {
	list, err := s.node.Policy(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *server) setPolicy(w http.ResponseWriter, r *http.Request) {
	var req Setting
	if readRequest(w, r, &req) {
		answerText(w, "", s.node.SetPolicy(r.Context(), req.Key, req.Value))
	}
}

func (s *server) quota(w http.ResponseWriter, r *http.Request) {
	q, err := s.node.Quota(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, q)
}

func (s *server) setQuota(w http.ResponseWriter, r *http.Request) {
	var req Quota
	if readRequest(w, r, &req) {
		answerText(w, "", s.node.SetQuota(r.Context(), req.Limit))
	}
}

func answerText(w http.ResponseWriter, text string, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, textAnswer{Text: text})
}

func readRequest(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(into); err != nil {
		writeError(w, &fail.Error{Kind: fail.Usage, Op: "read request", Err: err})
		return false
	}
	return true
}

func (s *server) wait(w http.ResponseWriter, r *http.Request) {
	var req WaitRequest
	if !readRequest(w, r, &req) {
		return
	}
	out := newEvents(w)
	err := s.node.Wait(r.Context(), req, func(p Progress) { _ = out.send(event{Progress: &p}) })
	out.end(err)
}

func (s *server) scrub(w http.ResponseWriter, r *http.Request) {
	out := newEvents(w)
	rep, err := s.node.Scrub(r.Context(), func(p ScrubProgress) { _ = out.send(event{Scrub: &p}) })
	for i := 0; i < len(rep.Problems) && err == nil; i++ {
		err = out.sendLazily(event{Problem: rep.Problems[i]})
	}
	rep.Problems = nil
	if err == nil {
		err = out.send(event{Scrubbed: &rep})
	}
	out.end(err)
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	out := newEvents(w)
	out.end(s.files.List(r.Context(), r.URL.Query().Get("path"), func(e Entry) error {
		e.Raw, e.RawTarget = rawName(e.Name), rawName(e.Target)
		return out.sendLazily(event{Entry: &e})
	}))
}

// events is a streamed answer: one JSON object a line, the last says how it ended.
type events struct {
	rc  *http.ResponseController
	enc *json.Encoder
}

func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &events{rc: http.NewResponseController(w), enc: json.NewEncoder(w)}
}

// send writes one line and pushes it to the client.
func (e *events) send(v event) error {
	if err := e.enc.Encode(v); err != nil {
		return err
	}
	return e.rc.Flush()
}

// sendLazily writes one line that the client gets sooner or later.
func (e *events) sendLazily(v event) error { return e.enc.Encode(v) }

// end sends the last line. If the client is gone, nobody is left to be told.
func (e *events) end(err error) {
	if err != nil {
		_ = e.send(event{Error: toWire(err)})
		return
	}
	_ = e.send(event{Done: true})
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	body, mode, err := s.files.Open(r.Context(), r.URL.Query().Get("path"))
	if err != nil {
		writeError(w, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(modeHeader, strconv.FormatUint(uint64(mode), 8))
	w.Header().Set("Trailer", errorTrailer)
	w.WriteHeader(http.StatusOK)
	if _, err := io.CopyBuffer(onlyWriter{w}, body, make([]byte, 1<<20)); err != nil {
		text, _ := json.Marshal(toWire(err))
		w.Header().Set(errorTrailer, string(text))
	}
}

// onlyWriter hides ReadFrom, whose buffer is small.
type onlyWriter struct{ io.Writer }

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	opts := PutOptions{Mode: 0o644}
	if m := r.URL.Query().Get("mode"); m != "" {
		mode, err := strconv.ParseUint(m, 8, 32)
		if err != nil || mode > 0o777 {
			writeError(w, &fail.Error{Kind: fail.Usage, Op: "mode " + m + " is not 0 to 0777"})
			return
		}
		opts.Mode = uint32(mode)
	}
	answerDone(w, s.files.Put(r.Context(), r.URL.Query().Get("path"), opts, r.Body))
}

func (s *server) remove(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	answerDone(w, s.files.Remove(r.Context(), q.Get("path"), q.Get("recursive") == "true"))
}

func (s *server) history(w http.ResponseWriter, r *http.Request) {
	h, err := s.files.History(r.Context(), r.URL.Query().Get("path"))
	if err != nil {
		writeError(w, err)
		return
	}
	out := newEvents(w)
	for i := 0; i < len(h.Contents) && err == nil; i++ {
		err = out.sendLazily(event{Content: &h.Contents[i]})
	}
	for i := 0; i < len(h.Entries) && err == nil; i++ {
		h.Entries[i].Raw = rawName(h.Entries[i].Name)
		err = out.sendLazily(event{Past: &h.Entries[i]})
	}
	out.end(err)
}

func (s *server) restore(w http.ResponseWriter, r *http.Request) {
	var req RestoreRequest
	if !readRequest(w, r, &req) {
		return
	}
	if q := r.URL.Query(); q.Has("path") {
		req.Path, req.To = q.Get("path"), q.Get("to")
	}
	done, err := s.files.Restore(r.Context(), req)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

func answerDone(w http.ResponseWriter, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, event{Done: true})
}
