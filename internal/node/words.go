package node

import (
	"errors"
	"regexp"
	"strings"
)

// packagePrefix is what our sentinels begin with: for logs, not for people.
var packagePrefix = regexp.MustCompile(`\b(casstore|cipher|chunk|kv|namespace|pebble|replica|sealedfs|transport|volume): `)

// words returns err without the names of packages in its text. The chain of
// causes ends here: use it last.
func words(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(packagePrefix.ReplaceAllString(err.Error(), ""), "\n<corruption detail carrier>", ""))
}
