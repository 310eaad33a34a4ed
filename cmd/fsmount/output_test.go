package main

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestNobodyReads: a command whose output nobody reads any more ends without a word, but not the node that others use through it.
func TestNobodyReads(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	m.putFile("big", random(4<<20), 0o600)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cat := m.begin(func(cmd *exec.Cmd) { cmd.Stdout = w }, "cat", "big")
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	put, in := m.beginPut("other")
	r.Close()
	if _, err := in.Write(make([]byte, 8<<20)); err != nil { // which the node of cat takes
		t.Fatal(err)
	}
	in.Close()
	if code := put.ends(30 * time.Second); code != 0 {
		t.Errorf("put: exit code %d: %s", code, put.said.String())
	}
	if code := cat.ends(30 * time.Second); code != 130 || cat.said.String() != "" {
		t.Errorf("cat: exit code %d: %s", code, cat.said.String())
	}
	m.must("ls", "other")
}

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
