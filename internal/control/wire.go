package control

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/foreverfs/forever/internal/fail"
)

// errorTrailer carries the failure of a body that had already begun.
const errorTrailer = "Forever-Error"

// modeHeader carries the mode of a file, in octal.
const modeHeader = "Forever-Mode"

// wireError is a failure on its way to the client.
type wireError struct {
	Kind    fail.Kind `json:"kind"`
	Message string    `json:"message"`
	Next    string    `json:"next,omitempty"`
}

func toWire(err error) *wireError {
	var e *fail.Error
	if !errors.As(err, &e) {
		return &wireError{Kind: fail.Internal, Message: err.Error()}
	}
	said := *e
	said.Next = ""
	return &wireError{Kind: e.Kind, Message: said.Error(), Next: e.Next}
}

func (w *wireError) err() error {
	return &fail.Error{Kind: w.Kind, Op: w.Message, Next: w.Next}
}

// httpStatus is only for people who look with curl; clients read the kind.
func httpStatus(k fail.Kind) int {
	switch k {
	case fail.Usage, fail.Invite:
		return http.StatusBadRequest
	case fail.Path, fail.NoVolume:
		return http.StatusNotFound
	case fail.Keyless, fail.ReadOnly, fail.Refused:
		return http.StatusForbidden
	case fail.NoSpace:
		return http.StatusInsufficientStorage
	case fail.Timeout, fail.Peer, fail.Unavailable:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, err error) {
	wire := toWire(err)
	writeJSON(w, httpStatus(wire.Kind), event{Error: wire})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client is gone if this fails; nobody is left to be told.
	_ = json.NewEncoder(w).Encode(v)
}
