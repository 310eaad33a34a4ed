package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// report is what a run found, as it is written for other programs.
type report struct {
	Date    time.Time   `json:"date"`
	Machine string      `json:"machine"`
	Rounds  int         `json:"rounds"`
	Scale   scale       `json:"scale"`
	Rows    []rowReport `json:"rows,omitempty"`
	Checks  []check     `json:"checks,omitempty"`
}

// rowReport is what was found in one row. Ratios are absent where one side is.
type rowReport struct {
	Key     string              `json:"key"`
	Title   string              `json:"title"`
	Unit    string              `json:"unit"`
	Target  float64             `json:"target"`
	Samples map[string][]sample `json:"samples"` // of each system, one a round

	ToNative           *summary `json:"to_native,omitempty"`
	ToCeiling          *summary `json:"to_ceiling,omitempty"`
	ToGocryptfs        *summary `json:"to_gocryptfs,omitempty"`
	CeilingToNative    *summary `json:"ceiling_to_native,omitempty"`
	CeilingToGocryptfs *summary `json:"ceiling_to_gocryptfs,omitempty"`
	Missed             []string `json:"missed,omitempty"` // those whose target is missed
}

// check is a single figure with a limit.
type check struct {
	Title string  `json:"title"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit,omitempty"` // 0: none
	Unit  string  `json:"unit"`
}

func newReport(opts options) report {
	return report{Date: time.Now(), Machine: machine(), Rounds: opts.rounds, Scale: opts.scale}
}

// machine describes where this runs, not which one it is.
func machine() string {
	var u unix.Utsname
	var info unix.Sysinfo_t
	_, _ = unix.Uname(&u), unix.Sysinfo(&info) // what fails is empty
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d cores, %s, Linux %s, %s", runtime.NumCPU(), humanize.IBytes(info.Totalram*uint64(info.Unit)), release, runtime.Version())
}

func (r *report) addRow(of row) {
	r.Rows = append(r.Rows, rowReport{Key: of.key, Title: of.title, Unit: of.unit, Target: of.target, Samples: map[string][]sample{}})
}

// add keeps a sample of a row, if the row was asked for.
func (r *report) add(key, system string, s sample) {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Key == key {
			row.Samples[system] = append(row.Samples[system], s)
			row.compare()
		}
	}
}

func (r *rowReport) compare() {
	s := r.Samples
	r.ToNative, r.ToCeiling, r.ToGocryptfs = ratios(s[ours], s[native]), ratios(s[ours], s[ceiling]), ratios(s[ours], s[gocryptfs])
	r.CeilingToNative, r.CeilingToGocryptfs = ratios(s[ceiling], s[native]), ratios(s[ceiling], s[gocryptfs])
	r.Missed = judge(r.Target, r.ToNative, r.ToCeiling, r.ToGocryptfs, r.CeilingToGocryptfs)
}

func (r *report) check(c check) {
	r.Checks = append(r.Checks, c)
}

// met reports whether a limit holds.
func (c check) met() string {
	switch {
	case c.Limit == 0:
		return ""
	case c.Value <= c.Limit:
		return "yes"
	}
	return "**no**"
}

// markdown prints the tables.
func (r *report) markdown(w io.Writer) {
	rounds := "1 round"
	if r.Rounds != 1 {
		rounds = fmt.Sprintf("%d rounds", r.Rounds)
	}
	fmt.Fprintf(w, "%s; %s; %s.\n", r.Date.Format("2 January 2006"), r.Machine, rounds)
	if r.Scale != fullScale() {
		fmt.Fprintf(w, "\n**Not the usual size**: %+v\n", r.Scale)
	}
	if len(r.Rows) > 0 {
		r.speeds(w)
		r.costs(w)
		r.shares(w)
	}
	if len(r.Checks) > 0 {
		fmt.Fprint(w, "\n| | figure | limit | met |\n|---|---:|---:|---|\n")
		for _, c := range r.Checks {
			limit := ""
			if c.Limit > 0 {
				limit = figure(c.Limit) + " " + c.Unit
			}
			fmt.Fprintf(w, "| %s | %s %s | %s | %s |\n", c.Title, figure(c.Value), c.Unit, limit, c.met())
		}
	}
}

func (r *report) speeds(w io.Writer) {
	fmt.Fprint(w, "\n| | unit | native | forever | gocryptfs | ceiling | to native | target | to ceiling | to gocryptfs | ceiling to native | met |\n"+
		"|---|---|---:|---:|---:|---:|---|---:|---|---|---|---|\n")
	for _, row := range r.Rows {
		cells := []string{row.Title, row.Unit}
		for _, sys := range systemNames {
			cells = append(cells, row.figure(sys))
		}
		cells = append(cells, ratio(row.ToNative), fmt.Sprintf("%.2f", row.Target), ratio(row.ToCeiling), ratio(row.ToGocryptfs), ratio(row.CeilingToNative), row.met())
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

// figure is the median of a system in the row's unit.
func (r rowReport) figure(system string) string {
	s := r.Samples[system]
	if len(s) == 0 {
		return ""
	}
	if r.Unit == "s" {
		return figure(over(s, func(s sample) float64 { return s.Seconds }))
	}
	return figure(over(s, sample.rate))
}

func (r rowReport) met() string {
	switch {
	case len(r.Samples[ours]) == 0:
		return ""
	case len(r.Missed) == 0:
		return "yes"
	}
	return "**no**: " + strings.Join(r.Missed, ", ")
}

// costs prints what the serving processes took.
func (r *report) costs(w io.Writer) {
	fmt.Fprint(w, "\n| | forever core-s | MiB | gocryptfs core-s | MiB | ceiling core-s | MiB |\n|---|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range r.Rows {
		cells := []string{row.Title}
		for _, sys := range []string{ours, gocryptfs, ceiling} {
			s := row.Samples[sys]
			if len(s) == 0 {
				cells = append(cells, "", "")
				continue
			}
			cells = append(cells, fmt.Sprintf("%.2f", over(s, func(s sample) float64 { return s.CPU })),
				fmt.Sprintf("%.0f", over(s, func(s sample) float64 { return float64(s.PeakRSS) / mib })))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

// figure shows three digits, or all before the point.
func figure(v float64) string {
	switch {
	case v >= 100:
		return humanize.Comma(int64(v + 0.5))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func ratio(s *summary) string {
	if s == nil {
		return ""
	}
	if s.Min == s.Max { // one round
		return figure(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", figure(s.Median), figure(s.Min), figure(s.Max))
}
