package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// sizeValue is an argument of bytes: 100GB, 50GiB; 0 means no limit.
type sizeValue int64

// Set implements pflag.Value.
func (v *sizeValue) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return errors.New("want a number of bytes, as 100GB or 50GiB")
	}
	*v = sizeValue(n)
	return nil
}

// String implements pflag.Value.
func (v *sizeValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*v), 10)
}

// Type implements pflag.Value.
func (v *sizeValue) Type() string { return "SIZE" }

// rateValue is a flag of bytes per second: 2MB, 500K, 10MiB/s; 0 means no limit.
type rateValue int64

// Set implements pflag.Value.
func (r *rateValue) Set(s string) error {
	n, err := humanize.ParseBytes(strings.TrimSuffix(s, "/s"))
	if err != nil || n > math.MaxInt64 {
		return errors.New("want a number of bytes per second, as 2MB or 500K")
	}
	if n > 0 && n < 4096 {
		return errors.New("less than 4K per second keeps no connection up")
	}
	*r = rateValue(n)
	return nil
}

// String implements pflag.Value.
func (r *rateValue) String() string {
	if *r == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*r), 10)
}

// Type implements pflag.Value.
func (r *rateValue) Type() string { return "RATE" }
