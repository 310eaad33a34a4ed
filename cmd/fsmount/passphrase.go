package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	ctx, stop := untilSignal()
	defer stop()
	return readUnseen(ctx, os.Stdin, os.Stderr, "Passphrase: ")
}

// readUnseen reads a line of a terminal that it does not show.
func readUnseen(ctx context.Context, tty *os.File, out io.Writer, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	fmt.Fprint(out, prompt)
	var line []byte
	err = heeding(ctx, 0, func() (err error) {
		line, err = term.ReadPassword(fd)
		return err
	})
	fmt.Fprintln(out)
	switch {
	case ctx.Err() != nil:
		return nil, errors.Join(&fail.Error{Kind: fail.Interrupted, Op: "interrupted"}, term.Restore(fd, before))
	case err != nil:
		return nil, fmt.Errorf("read the line: %w", err)
	}
	return line, nil
}
