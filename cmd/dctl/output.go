package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/internal/config"
)

// list prints rows for a person, or the messages for a program: one object
// {"name": [...]} with json, one object each with jsonl.
func list[M proto.Message](c *cli, name string, items []M, head string, row func(M) string) error {
	switch c.flags.output {
	case outputJSON:
		return c.emit(object{{name, messages(items)}})
	case outputJSONL:
		for _, m := range items {
			if err := c.emit(m); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([]string, len(items))
	for i, m := range items {
		rows[i] = row(m)
	}
	return table(c.out, head, rows)
}

// show prints one message for a program, or calls text for a person.
func (c *cli) show(m any, text func(io.Writer)) error {
	if c.machine() {
		return c.emit(m)
	}
	text(c.out)
	return nil
}

// table aligns rows whose cells are separated by tabs.
func table(out io.Writer, head string, rows []string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	return w.Flush()
}

// cells joins the cells of a row; whatever a cell holds stays in it.
func cells(values ...any) string {
	out := make([]string, len(values))
	for i, v := range values {
		if out[i] = line(fmt.Sprint(v)); out[i] == "" {
			out[i] = "-"
		}
	}
	return strings.Join(out, "\t")
}

// clock writes a time within a deployment as mm:ss, or h:mm:ss.
func clock(ms int64) string {
	s := max(ms, 0) / 1000
	if s < 3600 {
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// span writes a duration in milliseconds for people.
func span(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return d.String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return config.FormatDuration(d.Round(time.Second))
}

// moment writes a wall time, "" for none.
func moment(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

// dash stands for what there is none of.
func dash(s string) string { return cmp.Or(s, "-") }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// shortName is a revision's name as people say it: a whole commit by its first
// 12 digits, which a command takes too.
func shortName(name string) string {
	const whole, short = 40, 12
	if len(name) == whole && strings.Trim(name, "0123456789abcdef") == "" {
		return name[:short]
	}
	return name
}
