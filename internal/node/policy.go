package node

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

// setting is one that the volume's policy knows.
type setting struct {
	key   string
	first string // before anybody has set it
	about string
	takes string // in words, after "give"
	check func(value string) bool
}

// settings are those that the volume's policy knows, in the order in which they are shown.
var settings = []setting{
	{"replicas", "1", "how many other devices shall hold everything: what fsmount wait waits for", "a number from 1 to 1000", isCount},
	{"keep", "365d", "how long history goes back", "a length of time from an hour to a hundred years, as in 365d or 36h", isAge(time.Hour)},
	{"forget-after", "90d", "how long a device may be away before the others go on without it", "a length of time from a day to a hundred years, as in 90d or 36h", isAge(day)},
}

func isCount(value string) bool {
	n, err := strconv.Atoi(value)
	return err == nil && n >= 1 && n <= 1000
}

// isAge accepts lengths of time from least to a hundred years.
func isAge(least time.Duration) func(string) bool {
	return func(value string) bool {
		d, err := parseAge(value)
		return err == nil && d >= least && d <= 36500*day
	}
}

// Policy implements control.Node.
func (c controlNode) Policy(context.Context) ([]control.Setting, error) {
	set := c.n.repl.Policy()
	out := make([]control.Setting, len(settings))
	for i, s := range settings {
		out[i] = control.Setting{Key: s.key, Value: s.first, About: s.about}
		if v, ok := set[s.key]; ok && s.check(v) {
			out[i].Value, out[i].Set = v, true
		}
	}
	return out, nil
}

// SetPolicy implements control.Node.
func (c controlNode) SetPolicy(_ context.Context, key, value string) error {
	if c.n.format.Role != RoleMember {
		return errKeyless()
	}
	if err := c.n.inStanding(); err != nil {
		return err
	}
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		var known []string
		for _, s := range settings {
			known = append(known, s.key)
		}
		return &fail.Error{Kind: fail.Usage, Op: "there is no setting " + key, Next: "the settings are " + strings.Join(known, ", ")}
	}
	if s := settings[i]; !s.check(value) {
		return &fail.Error{Kind: fail.Usage, Op: key + " cannot be " + strconv.Quote(value), Next: "give " + s.takes}
	}
	return standingError(c.n.repl.SetPolicy(map[string]string{key: value}))
}

// age returns a setting that is a length of time, or otherwise if nobody has set it.
func (n *Node) age(key string, otherwise time.Duration) time.Duration {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if v := n.repl.Policy()[key]; i >= 0 && settings[i].check(v) {
		d, _ := parseAge(v)
		return d
	}
	return otherwise
}
