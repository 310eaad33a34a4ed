package main

import "slices"

// summary is what rounds have in common.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func summarize(v []float64) *summary {
	if len(v) == 0 {
		return nil
	}
	return &summary{median(v), slices.Min(v), slices.Max(v)}
}

// median returns the middle, or the mean of the two in the middle; 0 of nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// ratios compares two systems round by round: how many times as fast as base each was.
func ratios(of, base []sample) *summary {
	var v []float64
	for i := range min(len(of), len(base)) {
		if b := base[i].rate(); b > 0 {
			v = append(v, of[i].rate()/b)
		}
	}
	return summarize(v)
}

// over returns the median of something about samples.
func over(all []sample, what func(sample) float64) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, what(s))
	}
	return median(v)
}

const (
	// ofCeiling is how much of the ceiling every row should reach.
	ofCeiling = 0.7
	// timesGocryptfs is how many times as fast as gocryptfs it should be where the ceiling is.
	timesGocryptfs = 1.5
)

// judge says which targets a row misses. A target for which there is no figure is not missed.
func judge(target float64, toNative, toCeiling, toGocryptfs, ceilingToGocryptfs *summary) (missed []string) {
	below := func(s *summary, want float64) bool { return s != nil && s.Median < want }
	if below(toNative, target) {
		missed = append(missed, native)
	}
	if below(toCeiling, ofCeiling) {
		missed = append(missed, ceiling)
	}
	room := ceilingToGocryptfs != nil && ceilingToGocryptfs.Median >= timesGocryptfs
	if room && below(toGocryptfs, timesGocryptfs) {
		missed = append(missed, gocryptfs)
	}
	return missed
}
