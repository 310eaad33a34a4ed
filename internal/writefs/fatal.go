package writefs

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
)

// Fatal returns what pebble tells a logger that is to end the process, as an error in which errors.Is finds the cause.
func Fatal(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = cause
		}
	}
	return err
}

// Open opens a database. What pebble takes for fatal meanwhile is an error here too, if its logger panics with that; pebble has given
// the lock back then.
func Open(dir string, opts *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		fatal := recover()
		if fatal == nil {
			return
		}
		var ok bool
		if err, ok = fatal.(error); !ok || errors.As(err, new(runtime.Error)) {
			panic(fatal)
		}
	}()
	return pebble.Open(dir, opts)
}
