package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestFullOutput: what cannot write its output for want of space says so, whatever the command.
func TestFullOutput(t *testing.T) {
	m := newMachine(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	check := func(words string, args ...string) {
		t.Helper()
		p := m.begin(func(cmd *exec.Cmd) { cmd.Stdout = full }, args...)
		checkFailure(t, result{code: p.ends(time.Minute), err: p.said.String()}, 13, words, args)
	}
	check("mint a new one with fsmount key export", "init")
	m.serve()
	m.putFile("file", "content", 0o600)
	for _, args := range [][]string{
		{"cat", "file"}, {"ls"}, {"ls", "-l"}, {"history", "file"}, {"history", "/"}, {"history", "/", "--json"}, {"scrub"}, {"scrub", "--json"},
		{"devices"}, {"devices", "--json"}, {"config"}, {"config", "--json"}, {"quota"}, {"status"}, {"status", "--json"}, {"invite"}, {"version"},
	} {
		check("write to standard output: no space left on device", args...)
	}
	check("mint a new one with fsmount key export", "key", "export")
}
