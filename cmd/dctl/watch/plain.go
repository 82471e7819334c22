package watch

import (
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// many is the number of hosts above which tasks are told in batches, except
// those that failed.
const many = 50

// plain writes a line for each change, without any escape sequence.
type plain struct {
	out    io.Writer
	headed bool
	away   bool   // no coordinator answers
	behind string // whom it was said to wait for, while that one halts
}

// Plain returns a renderer that writes a line for each change, without any
// escape sequence.
func Plain(out io.Writer) Renderer { return &plain{out: out} }

// Update writes a line for each record.
func (p *plain) Update(s *Progress, u Update) {
	s.Shown = true
	if u.Lost != nil {
		if !p.away {
			fmt.Fprintln(p.out, "      connection lost, trying other coordinators; the deployment goes on without us")
		}
		p.away = true
		return
	}
	if p.away {
		p.away = false
		fmt.Fprintln(p.out, "      connected again")
	}
	if !p.headed && s.Deployment != nil {
		p.headed = true
		fmt.Fprintln(p.out, Header(s.Deployment))
	}
	p.records(s, u.Records)
	p.queued(s.Deployment)
}

// queued says, once, that nothing goes on until a person does something about
// the deployment before this one.
func (p *plain) queued(d *controlv1.Deployment) {
	o := d.GetBehind()
	if !Halted(o) || d.Terminal {
		p.behind = ""
		return
	}
	if p.behind == o.Id {
		return
	}
	p.behind = o.Id
	text := fmt.Sprintf("waits for %s (%s), which is %s", output.ShortName(o.Revision), o.Id, o.Status)
	if o.Cause != "" {
		text += ": " + o.Cause
	}
	fmt.Fprintln(p.out, output.Clock(d.ElapsedMs), output.Line(text))
	NextSteps(p.out, d, nil)
}

// Header is the first line: what goes where, who wants it, and its id.
func Header(d *controlv1.Deployment) string {
	return output.Line(fmt.Sprintf("%s  deployment %s  %s", headline(d), output.ShortID(d.Id), sizes(d)))
}

// Title names a deployment without its size.
func Title(d *controlv1.Deployment) string {
	return output.Line(fmt.Sprintf("%s  deployment %s", headline(d), output.ShortID(d.Id)))
}

// headline is "www 4f2a91c → 9be01d7  prod  by marco".
func headline(d *controlv1.Deployment) string {
	from := "nothing"
	if d.From != "" {
		from = output.ShortName(d.From)
	}
	text := fmt.Sprintf("%s %s → %s  %s  by %s", d.App, from, output.ShortName(d.Revision), d.Group, d.Actor)
	if d.Inverse {
		text = "rollback of " + text
	}
	if d.Emergency != "" {
		text = "EMERGENCY: " + text
	}
	return text
}

// sizes is "12 hosts in 4 waves".
func sizes(d *controlv1.Deployment) string {
	return output.Count(int(d.Hosts), "host") + " in " + output.Count(len(d.Waves), "wave")
}

func (p *plain) records(s *Progress, records []*controlv1.Record) {
	batch := map[string][]*controlv1.Record{}
	var order []string
	for _, r := range records {
		if r.Subject != "task" || bad(r) || s.Deployment.GetHosts() <= many {
			fmt.Fprintln(p.out, output.Clock(r.ElapsedMs), s.once(r))
			continue
		}
		key := r.Wave + "\x00" + r.To
		if batch[key] == nil {
			order = append(order, key)
		}
		batch[key] = append(batch[key], r)
	}
	for _, key := range order {
		p.batch(s, batch[key])
	}
}

// batch tells of the tasks of one wave that went the same way.
func (p *plain) batch(s *Progress, records []*controlv1.Record) {
	r := records[len(records)-1]
	if len(records) == 1 {
		fmt.Fprintln(p.out, output.Clock(r.ElapsedMs), recordText(r))
		return
	}
	text := fmt.Sprintf("wave %s: %d hosts %s (%s)", output.Line(r.Wave), len(records), output.Line(r.To),
		hostNames(records))
	for _, w := range s.Deployment.GetWaves() {
		if w.Name == r.Wave {
			text += fmt.Sprintf(", %d/%d settled", w.Settled, w.Total)
		}
	}
	fmt.Fprintln(p.out, output.Clock(r.ElapsedMs), text)
}

// once is a record as a sentence, without the cause that was told just before.
func (s *Progress) once(r *controlv1.Record) string {
	if r.Subject != "deployment" && r.Subject != "wave" || r.Text == "" {
		return recordText(r)
	}
	short := proto.CloneOf(r)
	if short.Text = s.Short(r.Text); r.Text == s.cause {
		short.Text = ""
	}
	s.cause = r.Text
	return recordText(short)
}

// gateText says what a gate answered.
func gateText(answer string) string {
	switch answer {
	case "pass":
		return "gate passed"
	case "fail":
		return "gate failed"
	}
	return "gate " + answer
}

// recordText is a record as a sentence on one line.
func recordText(r *controlv1.Record) string {
	var what string
	switch r.Subject {
	case "wave":
		what = "wave " + r.Wave + " " + r.To
	case "task", "host":
		what = place(r) + " " + r.To
	case "gate":
		what = gateText(r.To) + " in wave " + r.Wave
	case "request":
		what = "request " + r.To
	default:
		what = r.Subject + " " + r.To
	}
	text := r.Text
	if r.Failure != nil {
		text = FailureText(r)
	}
	if text != "" {
		what += ": " + text
	}
	return output.Line(what)
}

// Beat says how the deployment stands.
func (p *plain) Beat(s *Progress) {
	d := s.Deployment
	switch {
	case s.Lost != nil:
		fmt.Fprintln(p.out, "      no coordinator answers; trying again")
	case d == nil:
		fmt.Fprintln(p.out, "      waiting for a coordinator")
	default:
		fmt.Fprintln(p.out, output.Clock(d.ElapsedMs), "still "+standing(d))
	}
}

// standing says in one line where a deployment is.
func standing(d *controlv1.Deployment) string {
	return output.Line(strings.Join(append([]string{SettledText(d)}, d.Holds...), "; "))
}

// SettledText is "running, 7/12 hosts settled", or of a rollback "7/12 hosts back".
func SettledText(d *controlv1.Deployment) string {
	settled, what := 0, "settled"
	if d.Inverse {
		what = "back"
	}
	for _, w := range d.Waves {
		settled += int(there(d, w))
	}
	return fmt.Sprintf("%s, %d/%d hosts %s", d.Status, settled, d.Hosts, what)
}

// End writes the last line.
func (p *plain) End(s *Progress) {
	d := s.Deployment
	fmt.Fprintln(p.out, output.Clock(d.ElapsedMs), output.Line(ending(d)))
}

// ending is the last line of a watch.
func ending(d *controlv1.Deployment) string {
	of := fmt.Sprintf("%s %s on %s", d.App, d.Revision, d.Group)
	switch {
	case d.Inverse && d.Terminal && d.Broken > 0:
		return fmt.Sprintf("ROLLBACK FAILED on %s: %s; %s", output.Count(int(d.Broken), "host"), of, d.Cause)
	case d.Inverse && d.Status == "succeeded":
		return d.Cause + ": " + d.App + " on " + d.Group
	case d.Status == "succeeded" && d.Broken > 0:
		return fmt.Sprintf("DONE, but %s does not serve: %s; %s", output.Count(int(d.Broken), "host"), of, d.Cause)
	case d.Status == "succeeded" && d.Cause != "":
		return "done: " + of + "; " + d.Cause
	case d.Status == "succeeded":
		return "done: " + of
	case len(d.WaitsFor) > 0 && !d.Terminal:
		return "waits for approval: " + strings.Join(d.WaitsFor, ", ")
	case d.Status == "rolled_back" && d.Broken > 0:
		return fmt.Sprintf("ROLLBACK FAILED on %s: %s", output.Count(int(d.Broken), "host"), of)
	case d.Status == "rolled_back" && d.Asked != "":
		return d.Cause + ": " + d.App + " on " + d.Group
	case d.Status == "rolled_back":
		return "FAILED and rolled back: " + of
	case d.Status == "paused":
		return "HALTED, waits for a decision: " + of
	}
	return strings.ToUpper(d.Status) + ": " + of
}
