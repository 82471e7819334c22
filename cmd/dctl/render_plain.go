package main

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

// plainRenderer writes a line for each change, without any escape sequence.
type plainRenderer struct {
	out    io.Writer
	headed bool
	lost   bool
	behind string // whom it was said to wait for, while that one halts
}

func (p *plainRenderer) update(s *story, u update) {
	s.told = true
	if u.lost != nil {
		if !p.lost {
			fmt.Fprintln(p.out, "      connection lost, trying other coordinators; the deployment goes on without us")
		}
		p.lost = true
		return
	}
	if p.lost {
		p.lost = false
		fmt.Fprintln(p.out, "      connected again")
	}
	if !p.headed && s.deployment != nil {
		p.headed = true
		fmt.Fprintln(p.out, header(s.deployment))
	}
	p.records(s, u.records)
	p.queued(s.deployment)
}

// queued says, once, that nothing goes on until a person does something about
// the deployment before this one.
func (p *plainRenderer) queued(d *controlv1.Deployment) {
	o := d.GetBehind()
	if !halted(o) || d.Terminal {
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
	next(p.out, d, nil)
}

// header is the first line: what goes where, who wants it, and its id.
func header(d *controlv1.Deployment) string {
	return output.Line(fmt.Sprintf("%s  deployment %s  %s", headline(d), d.Id, sizes(d)))
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
	return text
}

// sizes is "12 hosts in 4 waves".
func sizes(d *controlv1.Deployment) string {
	return output.Count(int(d.Hosts), "host") + " in " + output.Count(len(d.Waves), "wave")
}

func (p *plainRenderer) records(s *story, records []*controlv1.Record) {
	batch := map[string][]*controlv1.Record{}
	var order []string
	for _, r := range records {
		if r.Subject != "task" || bad(r) || s.deployment.GetHosts() <= many {
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
func (p *plainRenderer) batch(s *story, records []*controlv1.Record) {
	r := records[len(records)-1]
	if len(records) == 1 {
		fmt.Fprintln(p.out, output.Clock(r.ElapsedMs), recordText(r))
		return
	}
	text := fmt.Sprintf("wave %s: %d hosts %s (%s)", output.Line(r.Wave), len(records), output.Line(r.To),
		hostNames(records))
	for _, w := range s.deployment.GetWaves() {
		if w.Name == r.Wave {
			text += fmt.Sprintf(", %d/%d settled", w.Settled, w.Total)
		}
	}
	fmt.Fprintln(p.out, output.Clock(r.ElapsedMs), text)
}

// once is a record as a sentence, without the cause that was told just before.
func (s *story) once(r *controlv1.Record) string {
	if r.Subject != "deployment" && r.Subject != "wave" || r.Text == "" {
		return recordText(r)
	}
	short := proto.CloneOf(r)
	if short.Text = s.brief(r.Text); r.Text == s.cause {
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
		text = failureText(r)
	}
	if text != "" {
		what += ": " + text
	}
	return output.Line(what)
}

func (p *plainRenderer) beat(s *story) {
	d := s.deployment
	switch {
	case s.lost != nil:
		fmt.Fprintln(p.out, "      no coordinator answers; trying again")
	case d == nil:
		fmt.Fprintln(p.out, "      waiting for a coordinator")
	default:
		fmt.Fprintln(p.out, output.Clock(d.ElapsedMs), "still "+standing(d))
	}
}

// standing says in one line where a deployment is.
func standing(d *controlv1.Deployment) string {
	return output.Line(strings.Join(append([]string{settledText(d)}, d.Holds...), "; "))
}

// settledText is "running, 7/12 hosts settled".
func settledText(d *controlv1.Deployment) string {
	settled := 0
	for _, w := range d.Waves {
		settled += int(w.Settled)
	}
	return fmt.Sprintf("%s, %d/%d hosts settled", d.Status, settled, d.Hosts)
}

func (p *plainRenderer) end(s *story) {
	d := s.deployment
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
