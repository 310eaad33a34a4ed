package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/fail"
)

// TestExitCodesAreAsDocumented holds the table of docs/commands.md and the code together.
func TestExitCodesAreAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[fail.Kind]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d+) \\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		code, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		documented[fail.Kind(row[2])] = code
	}
	if diff := cmp.Diff(documented, exitCodes); diff != "" {
		t.Errorf("documented (-) and real (+) exit codes differ:\n%s", diff)
	}
	seen := map[int]fail.Kind{0: "success"}
	for kind, code := range exitCodes {
		if other, ok := seen[code]; ok {
			t.Errorf("%s and %s share code %d", kind, other, code)
		}
		seen[code] = kind
	}
}

func TestExitCodeOfWrappedErrors(t *testing.T) {
	err := fmt.Errorf("outer: %w", errors.Join(errors.New("x"), &fail.Error{Kind: fail.Invite, Op: "used"}))
	if code := exitCode(err); code != 9 {
		t.Errorf("exit code %d", code)
	}
	if code := exitCode(errors.New("whatever")); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
