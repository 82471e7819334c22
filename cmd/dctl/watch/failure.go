package watch

import (
	"fmt"
	"io"
	"slices"
	"strings"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// Bounds of what is said of a failure at once.
const (
	failedHosts = 5
	tailLines   = 20
)

// Report tells why a deployment did not succeed and what to type next. What a
// reader has been told line by line is not told again, but for the output.
func (s *Progress) Report(w io.Writer) {
	failed := s.Failed()
	if s.Shown {
		s.reportOutput(w, failed)
		NextSteps(w, s.Deployment, failed)
		return
	}
	for i, r := range failed {
		if i == failedHosts {
			fmt.Fprintf(w, "and %s: %s\n", output.Count(len(failed)-i, "more failed host"), hostNames(failed[i:]))
			break
		}
		reportHost(w, r)
	}
	for _, g := range s.gates {
		fmt.Fprintf(w, "gate failed in wave %s: %s\n", output.Line(g.Wave), output.Line(g.Text))
	}
	if cause := s.Short(s.Deployment.GetCause()); cause != "" {
		fmt.Fprintf(w, "cause: %s\n", output.Line(cause))
	}
	NextSteps(w, s.Deployment, failed)
}

// reportOutput shows what the hooks of failed hosts wrote last.
func (s *Progress) reportOutput(w io.Writer, failed []*controlv1.Record) {
	for i, r := range failed {
		if i == failedHosts {
			return
		}
		if m := r.GetFailure().GetMessage(); m != "" && !strings.Contains(FailureText(r), m) {
			fmt.Fprintf(w, "%s: %s\n", output.Line(r.Host), output.Line(m))
		}
		tail := output.LastLines(r.GetFailure().GetTail(), tailLines)
		if len(tail) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s wrote at last:\n", output.Line(r.Host))
		for _, l := range tail {
			fmt.Fprintf(w, "  | %s\n", output.Clean(l))
		}
	}
}

// Short is a cause without the reason in its parentheses, "(HOST: WHY)", of a
// host whose failure is told by itself.
func (s *Progress) Short(cause string) string {
	for host := range s.failures {
		from, to := strings.Index(cause, " ("+host+": "), strings.LastIndex(cause, ")")
		if from > 0 && to > from {
			return cause[:from] + cause[to+1:]
		}
	}
	return cause
}

// reportHost names host, zone, hook, exit, duration and the last lines of
// output of one failure.
func reportHost(w io.Writer, r *controlv1.Record) {
	fmt.Fprintf(w, "%s %s: %s\n", r.To, place(r), output.Line(FailureText(r)))
	f := r.Failure
	if f == nil {
		return
	}
	if f.Message != "" && !strings.Contains(FailureText(r), f.Message) {
		fmt.Fprintf(w, "  %s\n", output.Line(f.Message))
	}
	for _, l := range output.LastLines(f.Tail, tailLines) {
		fmt.Fprintf(w, "  | %s\n", output.Clean(l))
	}
}

// place is "web1 (eu-1a, wave canary)".
func place(r *controlv1.Record) string {
	var at []string
	if r.Zone != "" {
		at = append(at, output.Line(r.Zone))
	}
	if r.Wave != "" {
		at = append(at, "wave "+output.Line(r.Wave))
	}
	if len(at) == 0 {
		return output.Line(r.Host)
	}
	return output.Line(r.Host) + " (" + strings.Join(at, ", ") + ")"
}

// FailureText is "ValidateService scripts/check.sh: exit status 1 after 3.2s".
func FailureText(r *controlv1.Record) string {
	f := r.Failure
	if f == nil {
		return r.Text
	}
	what := strings.TrimSpace(f.Event + " " + f.Script)
	exit := f.Exit
	if exit == "" {
		exit = f.Message
	}
	if exit == "" {
		exit = r.Text
	}
	if what != "" {
		exit = what + ": " + exit
	}
	if f.DurationMs > 0 {
		exit += " after " + output.Span(f.DurationMs)
	}
	return exit
}

func hostNames(records []*controlv1.Record) string {
	var names []string
	for _, r := range records {
		names = append(names, output.Line(r.Host))
	}
	return output.Shorten(names)
}

// NextSteps prints the commands that make sense now, each with what it does as a
// shell's comment, so that a line can be taken as it stands.
func NextSteps(w io.Writer, d *controlv1.Deployment, failed []*controlv1.Record) {
	if d == nil {
		return
	}
	var rows []string
	add := func(what, format string, args ...any) {
		rows = append(rows, fmt.Sprintf(format, args...)+"  # "+what)
	}
	if len(failed) > 0 {
		add("all that its hooks wrote", "dctl logs %s --host %s", d.Id, output.Line(failed[0].Host))
	}
	switch {
	case len(d.WaitsFor) > 0 && !d.Terminal:
		add("say yes, as somebody else than "+output.Line(d.Actor), "dctl approve %s", d.Id)
		add("say no", "dctl reject %s", d.Id)
		add("watch what comes after it", "dctl watch %s", d.Id)
	case d.Status == "paused" && d.Decision:
		add("try the failed hosts again", "dctl retry %s", d.Id)
		for _, zone := range stuckZones(d) {
			add("go on without that zone", "dctl skip-zone %s %s", d.Id, zone)
		}
		add("deploy a repair",
			"dctl deploy --app %s --rev REVISION --fixes %s --detach", d.App, output.ShortName(output.Line(d.Revision)))
		add("and let it take over", "dctl take-over %s", d.Id)
		add("every host goes back", "dctl abort %s --rollback", d.Id)
		add("hosts keep what they run", "dctl abort %s --leave", d.Id)
	case !d.Terminal && d.Behind != nil:
		behind(d, add)
	case d.Status == "rolled_back" && d.Broken > 0:
		add("the hosts that could not go back", "dctl hosts list --app %s", d.App)
		add("look at every task", "dctl status %s", d.Id)
	case d.Status == "rolled_back":
		add("deploy a fixed revision", "dctl deploy --app %s --group %s --rev REVISION", d.App, d.Group)
	case !d.Terminal && len(Unreached(d)) > 0:
		add("go on without them", "dctl skip-host %s %s", d.Id, strings.Join(Unreached(d), " "))
	case d.Terminal:
		add("what every host runs now", "dctl hosts list --app %s", d.App)
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "next:\n  "+strings.Join(rows, "\n  "))
	}
}

// behind adds the ways on for a deployment that another one is in the way of.
func behind(d *controlv1.Deployment, add func(what, format string, args ...any)) {
	o := d.Behind
	what, id := output.ShortName(output.Line(o.Revision)), output.Line(o.Id)
	add("how "+what+" stands, which is in the way", "dctl status %s", id)
	switch {
	case len(o.WaitsFor) > 0:
		add("say yes to it", "dctl approve %s", id)
		add("say no to it", "dctl reject %s", id)
	case o.Status == "paused" && o.Decision:
		add("try its failed hosts again", "dctl retry %s", id)
	case o.Status == "paused":
		add("let it go on", "dctl resume %s", id)
	case o.Status == "running":
		add("let its bake, window or gate pass", "dctl promote %s", id)
	}
	if o.Status == "paused" || o.Status == "running" || o.Status == "pending" {
		add("end it, its hosts go back", "dctl abort %s --rollback", id)
		add("end it, its hosts keep what they run", "dctl abort %s --leave", id)
	}
	add("end this one instead", "dctl abort %s --leave", d.Id)
}

// Halted reports whether what a deployment waits for goes on only if a person
// does something.
func Halted(o *controlv1.Behind) bool {
	return o != nil && (o.Status == "paused" || len(o.WaitsFor) > 0)
}

// Unreached lists the hosts that a deployment waits for and nobody reaches.
func Unreached(d *controlv1.Deployment) []string {
	var out []string
	for _, t := range d.Tasks {
		if t.Status == "waiting" && t.Cause == "unreachable" {
			out = append(out, output.Line(t.Name))
		}
	}
	return out
}

// stuckZones lists the zones with hosts that failed or were taken back.
func stuckZones(d *controlv1.Deployment) []string {
	var out []string
	add := func(zone string, stuck bool) {
		if stuck && zone != "" && !slices.Contains(out, output.Line(zone)) {
			out = append(out, output.Line(zone))
		}
	}
	for _, t := range d.Tasks {
		add(t.Zone, t.Failure != nil || t.Status == "reverted")
	}
	for _, w := range d.Waves {
		add(w.Zone, w.Status == "reverted" || w.Status == "reverting")
	}
	return out
}

// TaskText is what a host does just now, or why it failed.
func TaskText(t *controlv1.Task) string {
	switch {
	case t.Failure != nil:
		return FailureText(&controlv1.Record{Failure: t.Failure, Text: t.Cause})
	case t.Event != "":
		return strings.TrimSpace(t.Event + " " + t.Script)
	}
	return t.Cause
}
