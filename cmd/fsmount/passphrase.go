package main

import (
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/foreverfs/forever/internal/fail"
)

// passphraseEnv holds the passphrase of the key file, for starts without a terminal.
const passphraseEnv = "FOREVER_PASSPHRASE"

// passphrase returns what protects the key file, or nothing. For a new key file
// that is only what the environment says; an existing protected one is asked for
// on the terminal.
func passphrase(creating bool) ([]byte, error) {
	if p := os.Getenv(passphraseEnv); p != "" {
		return []byte(p), nil
	}
	if creating {
		return nil, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, &fail.Error{Kind: fail.Key, Op: "the key file is protected by a passphrase",
			Next: "give it in $" + passphraseEnv + " or start on a terminal"}
	}
	fmt.Fprint(os.Stderr, "Passphrase: ")
	p, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return p, nil
}
