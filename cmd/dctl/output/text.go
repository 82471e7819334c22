// Package output is how dctl writes: text from elsewhere made safe for a
// terminal, tables and times for people.
package output

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/groundswell/groundswell/internal/config"
)

// Table aligns rows whose cells are separated by tabs.
func Table(out io.Writer, head string, rows []string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	return w.Flush()
}

// Cut writes text with each line cut to so many columns; 0 cuts none.
func Cut(w io.Writer, text string, columns int) error {
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); columns > 0 {
			line = ansi.Truncate(line, columns, "…")
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// Cells joins the cells of a row; whatever a cell holds stays in it.
func Cells(values ...any) string {
	out := make([]string, len(values))
	for i, v := range values {
		if out[i] = Line(fmt.Sprint(v)); out[i] == "" {
			out[i] = "-"
		}
	}
	return strings.Join(out, "\t")
}

// Clock writes a time within a deployment as mm:ss, or h:mm:ss.
func Clock(ms int64) string {
	s := max(ms, 0) / 1000
	if s < 3600 {
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// Span writes a duration in milliseconds for people.
func Span(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return d.String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return config.FormatDuration(d.Round(time.Second))
}

// Moment writes a wall time, "" for none.
func Moment(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

// Minute is a Moment in a table, to the minute, of UTC as the column's head says.
func Minute(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04")
}

// Dash stands for what there is none of.
func Dash(s string) string { return cmp.Or(s, "-") }

// Count is "1 host" or "2 hosts".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Bytes writes a number of bytes for people.
func Bytes(n int64) string {
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

// ShortName is a revision's name as people say it: a whole commit by its first
// 12 digits, which a command takes too.
func ShortName(name string) string {
	const whole, short = 40, 12
	if len(name) == whole && strings.Trim(name, "0123456789abcdef") == "" {
		return name[:short]
	}
	return name
}

// ShortID is a deployment's id as people say it: enough of its beginning to mean
// it, the time in milliseconds and two digits of chance. Every command takes it.
func ShortID(id string) string {
	const whole, short = 26, 12
	if len(id) == whole {
		return id[:short]
	}
	return id
}

// LastLines are the last n lines of a text.
func LastLines(text string, n int) []string {
	text = strings.TrimRight(text, "\r\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}

// Shorten joins names, the first ones and a count when there are many.
func Shorten(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}

// pseudoVersion is what Go calls a build of a commit that has no tag.
var pseudoVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+-(?:[0-9A-Za-z.]+\.)?\d{14}-([0-9a-f]{12})((?:\+dirty)?)$`)

// ShortVersion is a version in a table: a build without a tag by its commit alone.
func ShortVersion(v string) string { return pseudoVersion.ReplaceAllString(v, "$1$2") }
