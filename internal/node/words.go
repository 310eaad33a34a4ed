package node

import (
	"errors"
	"regexp"
)

// packagePrefix is what our sentinels begin with: for logs, not for people.
var packagePrefix = regexp.MustCompile(`\b(casstore|cipher|chunk|kv|namespace|replica|sealedfs|transport|volume): `)

// words returns err without the names of packages in its text. The chain of
// causes ends here: use it last.
func words(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(packagePrefix.ReplaceAllString(err.Error(), ""))
}
