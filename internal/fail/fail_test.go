package fail

import (
	"errors"
	"fmt"
	"testing"
)

func TestOneLine(t *testing.T) {
	cause := errors.New("first\nsecond")
	e := &Error{Kind: Peer, Op: "dial 127.0.0.1:1", Err: cause, Next: "start that node"}
	const want = "dial 127.0.0.1:1: first; second; start that node"
	if e.Error() != want || OneLine(fmt.Errorf("while joining: %w", e)) != want {
		t.Errorf("%q and %q, want %q", e.Error(), OneLine(e), want)
	}
	if got := OneLine(errors.Join(errors.New("a"), errors.New("b"))); got != "a; b" {
		t.Errorf("plain errors: %q", got)
	}
	if !errors.Is(e, cause) || KindOf(fmt.Errorf("x: %w", e)) != Peer || KindOf(cause) != Internal {
		t.Error("kind or cause is lost")
	}
}
