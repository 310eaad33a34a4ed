package main

import (
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
)

// profileEnv names a variable with the address (HOST:PORT) at which developers find
// profiles of the running program, as net/http/pprof serves them: there is no flag for it, and no protection.
const profileEnv = "FSMOUNT_PPROF"

// serveProfiles serves profiles until the process ends, if it was asked to.
func serveProfiles(log hclog.Logger) {
	addr := os.Getenv(profileEnv)
	if addr == "" {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { log.Error("profiles are not served", "error", server.ListenAndServe()) }()
}
