package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// maxPhrase bounds what is read as a recovery phrase, in bytes.
const maxPhrase = 4 << 10

func newRecoverCmd(g *globals) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "recover --from HOST:PORT",
		Short: "Let this machine into the volume with the recovery phrase, which it asks for",
		Long: `Let this machine into the volume of a recovery phrase, without any other device's
consent: for when the devices are lost. One that is left, at HOST:PORT, is enough, and
may be a keyless replica. The phrase is asked for, or read from standard input.
Afterwards mount as usual, revoke the devices that were lost, and mint a new phrase if
somebody else may know this one.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			if from == "" {
				return &fail.Error{Kind: fail.Usage, Op: "--from is missing", Next: "say where a device of the volume listens: --from HOST:PORT"}
			}
			cfg, err := quietConfig(g)
			if err != nil {
				return err
			}
			phrase, err := askPhrase(ctx, g)
			if err != nil {
				return err
			}
			return node.Recover(ctx, cfg, phrase, from)
		}).cobra(),
	}
	cmd.Flags().StringVar(&from, "from", "", "`HOST:PORT` of any device of the volume that is left")
	return cmd
}

// askPhrase reads the words from standard input, unseen if that is a terminal.
func askPhrase(ctx context.Context, g *globals) (line string, err error) {
	if f, ok := g.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b, err := readUnseen(ctx, f, g.err, "Recovery phrase: ")
		return string(b), err
	}
	err = heeding(ctx, 0, func() (err error) {
		line, err = bufio.NewReader(io.LimitReader(g.in, maxPhrase)).ReadString('\n')
		return err
	})
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if strings.TrimSpace(line) == "" {
		return "", &fail.Error{Kind: fail.Usage, Op: "there is no recovery phrase on standard input", Next: "type or pipe its 24 words in"}
	}
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read recovery phrase: %w", err)
	}
	return line, nil
}
