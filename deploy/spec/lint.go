package spec

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// The severities of a Problem.
const (
	SeverityError   = "error"   // Parse refuses the file
	SeverityWarning = "warning" // it works, but perhaps not as meant
)

// Problem is one finding of Lint.
type Problem struct {
	config.Error
	Severity string
}

// Lint returns everything that is wrong or doubtful in a deploy.yaml, in the
// order of its lines; nothing for a sound one.
func Lint(data []byte, filename string) []Problem {
	p := parse(data, filename)
	var out []Problem
	var errs config.Errors
	if errors.As(p.doc.Err(), &errs) {
		for _, e := range errs {
			out = append(out, Problem{Error: *e, Severity: SeverityError})
		}
		return out
	}
	p.doubts(func(path, format string, args ...any) {
		line, column := p.doc.At(path)
		out = append(out, Problem{
			Error: config.Error{
				File: filename, Line: line, Column: column, Field: path,
				Text: fmt.Sprintf(format, args...),
			},
			Severity: SeverityWarning,
		})
	})
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// doubts reports what is legal and yet rarely meant.
func (p *parser) doubts(warn func(path, format string, args ...any)) {
	same := map[string]string{} // selector → the first group that has it
	for _, g := range p.app.Groups {
		text := strings.Join(strings.Fields(g.Select), " ")
		if first := same[text]; first != "" {
			warn("groups."+g.Name+".select", "group %s selects the same hosts; a host is in one group of an "+
				"application, so one of the two stays empty", first)
		} else {
			same[text] = g.Name
		}
		if len(uses(g.Select)) == 0 {
			warn("groups."+g.Name+".select", "asks for no label, so it selects every host or none")
		}
		p.doubtConfig("groups."+g.Name+".config", &g.Config, p.file.Groups[g.Name].Config.inline, warn)
	}
	for _, name := range slices.Sorted(maps.Keys(p.file.Configs)) {
		if !p.used[name] {
			warn("configs."+name, "no group uses this config")
		}
		c := p.config("configs."+name, name, p.file.Configs[name])
		p.doubtConfig("configs."+name, &c, p.file.Configs[name], warn)
	}
}

func (p *parser) doubtConfig(path string, c *deploy.Config, written *configFile,
	warn func(path, format string, args ...any),
) {
	if written == nil {
		return
	}
	asked, baked, compared := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, g := range c.PreGates {
		asked[g] = true
	}
	for i, w := range c.Waves {
		for _, g := range slices.Concat(w.PreGates, w.Gates) {
			asked[g] = true
		}
		for _, g := range w.Gates {
			baked[g] = true
		}
		p.doubtWave(fmt.Sprintf("%s.waves[%d]", path, i), c, &w, warn)
	}
	for _, g := range c.Gates {
		if !asked[g.Name] {
			warn(path+".gates."+g.Name, "no wave asks this gate")
		}
		if g.Compare != nil {
			compared[g.Compare.Metric] = true
		}
		if g.Query != nil {
			p.doubtQuery(path+".gates."+g.Name, &g, baked[g.Name], warn)
		}
	}
	for _, m := range c.Metrics {
		if !compared[m.Name] {
			warn(path+".metrics."+m.Name, "no gate compares this metric")
		}
	}
	p.doubtPolicy(path, c, warn)
}

func (p *parser) doubtWave(path string, c *deploy.Config, w *deploy.WaveSpec,
	warn func(path, format string, args ...any),
) {
	if len(w.Gates) > 0 && w.BakeMin == 0 {
		warn(path, "has gates but no bake: they are asked once, and nobody watches afterwards")
	}
	for _, g := range c.GatesOf(w.Gates) {
		if g.Query != nil && w.BakeMin < g.Query.Window {
			warn(path+".bake.min", "is shorter than the %s that gate %s looks back, so the bake goes on until it "+
				"answers", config.FormatDuration(g.Query.Window), g.Name)
		}
	}
	if w.Early && w.BakeMax > 0 && w.BakeMax == w.BakeMin {
		warn(path+".bake.early", "min and max are the same, so there is no early")
	}
	if w.Rehearse && w.Kind != "count" && !w.OneBox {
		warn(path+".rehearseRollback",
			"goes to the new revision, back and to it again on every host of the wave, not on one box alone")
	}
	if w.FailureBudget.Relative && w.FailureBudget.PPM == deploy.Million {
		warn(path+".failureBudget", "the wave passes with one host that succeeds")
	}
}

func (p *parser) doubtPolicy(path string, c *deploy.Config, warn func(path, format string, args ...any)) {
	if c.OnInconclusive == string(deploy.VerdictPass) {
		warn(path+".onInconclusive",
			"waves are sealed without any answer of their gates, for instance while Prometheus is down")
	}
	if c.Rollback.IgnoreFloor {
		warn(path+".rollback.floor", "a rollback may take the whole group out of service at once")
	}
	if c.FailureBudgetTotal != nil && c.OnFailure.Wave.Do == deploy.ActionContinue {
		warn(path+".failureBudgetTotal", "changes nothing while onFailure.wave continues")
	}
}
