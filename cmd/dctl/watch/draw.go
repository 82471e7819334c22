package watch

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// Bounds of the view. It also stays a row and a column below the terminal's
// size: a terminal that scrolls or wraps takes the frame where no renderer
// finds it again.
const (
	liveHosts = 8
	liveWaves = 12
	barWidth  = 14
)

// Picture is what the live view shows of a state on a terminal of that size,
// without colours; ended is its last one.
func Picture(d *controlv1.Deployment, columns, rows int, ended bool) []string {
	v := &liveView{s: newProgress(false), width: columns, height: rows, plain: true, done: ended}
	v.s.Deployment = d
	return v.lines()
}

// lines is the whole view.
func (v *liveView) lines() []string {
	d := v.s.Deployment
	if d == nil {
		return []string{"waiting for a coordinator…"}
	}
	lines := []string{
		v.style("", true, output.Line(headline(d)+"  "+sizes(d))),
		output.Line(fmt.Sprintf("elapsed %s  deployment %s", output.Clock(d.ElapsedMs), d.Id)),
		v.style("", true, v.state(d)),
	}
	room := max(v.height, 8) - 2 - len(lines)
	holds := min(len(d.Holds), max(room/4, 1))
	if v.done && Over(d) { // the report below says it
		holds = 0
	}
	hosts := min(len(d.Tasks), liveHosts+1, max(room/3, 1))
	lines = append(lines, v.waves(d, min(liveWaves, room-holds-hosts))...)
	if !v.done { // afterwards a report names them
		lines = append(lines, v.hosts(d, hosts)...)
	}
	for _, h := range d.Holds[:holds] {
		lines = append(lines, "  "+output.Line(h))
	}
	if !v.done {
		lines = append(lines, v.footer(d))
	}
	for i, l := range lines {
		lines[i] = lipgloss.NewStyle().MaxWidth(max(v.width, 20) - 1).Render(l)
	}
	return lines
}

func (v *liveView) state(d *controlv1.Deployment) string {
	if v.s.Lost != nil {
		return "connection lost, trying other coordinators"
	}
	if Over(d) || v.done && len(d.WaitsFor) > 0 {
		return output.Line(ending(d))
	}
	return output.Line(SettledText(d))
}

// style colours text unless colours are off.
func (v *liveView) style(colour string, bold bool, text string) string {
	if v.plain {
		return text
	}
	s := lipgloss.NewStyle().Bold(bold)
	if colour != "" {
		s = s.Foreground(lipgloss.Color(colour))
	}
	return s.Render(text)
}

// waves draws a bar for each wave on at most rows lines; of many, those around
// the present one.
func (v *liveView) waves(d *controlv1.Deployment, rows int) []string {
	from, to := window(d.Waves, rows)
	var out []string
	if from > 0 {
		out = append(out, fmt.Sprintf("  … %s before", output.Count(from, "wave")))
	}
	for _, w := range d.Waves[from:to] {
		out = append(out, v.wave(d, w))
	}
	if rest := len(d.Waves) - to; rest > 0 {
		out = append(out, fmt.Sprintf("  … %s after", output.Count(rest, "wave")))
	}
	return out
}

// window chooses the waves to show on so many rows, two of which say how many
// there are before and after.
func window(waves []*controlv1.Wave, rows int) (from, to int) {
	if len(waves) <= rows {
		return 0, len(waves)
	}
	rows = max(rows-2, 1)
	now := slices.IndexFunc(waves, func(w *controlv1.Wave) bool {
		return w.Status != "sealed" &&
			w.Status != "skipped"
	})
	if now < 0 {
		now = len(waves)
	}
	from = max(0, min(now-2, len(waves)-rows))
	return from, min(len(waves), from+rows)
}

func (v *liveView) wave(d *controlv1.Deployment, w *controlv1.Wave) string {
	mark, colour := waveMark(w.Status)
	if d.Inverse && w.Status == "reverted" && w.Failed == 0 {
		mark, colour = waveMark("sealed")
	}
	text := fmt.Sprintf("%-16s %5s %-10s %s %s", output.Line(w.Name), fmt.Sprintf("%d/%d", there(d, w), w.Total),
		output.Line(w.Zone), bar(there(d, w), w), waveText(w))
	return " " + v.style(colour, false, mark) + " " + strings.TrimRight(text, " ")
}

func waveMark(status string) (mark, colour string) {
	switch status {
	case "sealed":
		return "✔", "2"
	case "deploying", "baking":
		return "▶", "6"
	case "reverting":
		return "◀", "3"
	case "reverted":
		return "✘", "1"
	case "skipped":
		return "–", "8"
	}
	return "○", "8"
}

// there counts the hosts of a wave that are where the deployment wants them: a
// rollback wants them back.
func there(d *controlv1.Deployment, w *controlv1.Wave) int32 {
	if d.Inverse {
		return w.Settled + w.Reverted
	}
	return w.Settled
}

func bar(there int32, w *controlv1.Wave) string {
	if w.Total <= 0 {
		return strings.Repeat("░", barWidth)
	}
	full := barWidth * int(there) / int(w.Total)
	failed := min(barWidth-full, (barWidth*int(w.Failed)+int(w.Total)-1)/int(w.Total))
	return strings.Repeat("█", full) + strings.Repeat("✘", failed) + strings.Repeat("░", barWidth-full-failed)
}

func waveText(w *controlv1.Wave) string {
	var parts []string
	for _, p := range []struct {
		n    int32
		what string
	}{{w.Granted, "running"}, {w.Failed, "failed"}, {w.Reverting, "going back"}, {w.Reverted, "back"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	switch {
	case w.Status == "baking":
		parts = append(parts, "bakes, "+output.Span(w.BakeLeftMs)+" left")
	case w.Status == "sealed" && w.BakeMs > 0:
		parts = append(parts, "baked "+output.Span(w.BakeMs))
	}
	return output.Line(strings.Join(parts, ", "))
}

// hosts draws the hosts to look at on at most rows lines, in the server's
// order: failed first.
func (v *liveView) hosts(d *controlv1.Deployment, rows int) []string {
	var out []string
	for i, t := range d.Tasks {
		if i == rows-1 && len(d.Tasks) > rows {
			return append(out, "  … "+output.Count(len(d.Tasks)-i, "more host"))
		}
		colour := "6"
		if t.Failure != nil {
			colour = "1"
		}
		out = append(out, "  "+v.style(colour, false,
			fmt.Sprintf("%-10s", output.Line(t.Status)))+" "+output.Line(fmt.Sprintf("%s  %s  %s", t.Name, t.Zone,
			TaskText(t))))
	}
	return out
}

func (v *liveView) footer(d *controlv1.Deployment) string {
	switch {
	case v.ask:
		return "abort: [r]ollback every host  [l]eave them as they are  any other key: go on"
	case v.said != "":
		return output.Line(v.said)
	case d.Status == "paused" && !d.Decision:
		return "[p] resume [a]bort [l]ogs [q] detach"
	}
	return "[p]ause [a]bort [l]ogs [q] detach"
}
