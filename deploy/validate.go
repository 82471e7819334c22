package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Validate checks what a config means, beyond its form. The path names the
// field as deploy.yaml does.
func (c *Config) Validate() (path string, err error) {
	for _, check := range []func() (string, error){
		c.validWaves, c.validMetrics, c.validGates, c.validUses, c.validBakes, c.validStage, c.validQuorum, c.validFailures,
		c.validLimits, c.validTimes,
	} {
		if path, err := check(); err != nil {
			return path, err
		}
	}
	return "", nil
}

// wrong is what a check returns.
func wrong(path, format string, args ...any) (string, error) {
	return path, fmt.Errorf(format, args...)
}

func (c *Config) validWaves() (string, error) {
	if len(c.Waves) == 0 {
		return wrong("waves", "a config needs at least one wave; the last must select remainder")
	}
	names := map[string]bool{}
	for i, w := range c.Waves {
		path := fmt.Sprintf("waves[%d]", i)
		switch {
		case w.Name == "":
			return wrong(path+".name", "a wave needs a name")
		case names[w.Name]:
			return wrong(path+".name", "wave %q is named twice", w.Name)
		case w.Kind == "remainder" && i < len(c.Waves)-1:
			return wrong(path+".select",
				"wave %q selects remainder, so nothing is left for the waves after it; move it to the end", w.Name)
		case w.Kind != "remainder" && i == len(c.Waves)-1:
			return wrong(path+".select", "the last wave must select remainder: every target, also a later joiner, "+
				"needs a wave; add one with `select: remainder`")
		case w.Kind == "count" && w.Size.Count < 1:
			return wrong(path+".select.count", "a wave of %d hosts does nothing; use at least 1", w.Size.Count)
		case w.ForEachZone && w.Kind != "remainder":
			return wrong(path+".forEach", "forEach: zone needs `select: remainder`")
		}
		names[w.Name] = true
	}
	return "", nil
}

func (c *Config) validMetrics() (string, error) {
	for _, m := range c.Metrics {
		path := "metrics." + m.Name
		switch {
		case (m.Total == "") != (m.Bad == ""):
			return wrong(path, "errors are counted by two queries; give both total and bad")
		case m.Total == "" && m.Samples == "":
			return wrong(path, "asks nothing; add total and bad (counters), or samples (values)")
		}
		for _, q := range []struct{ key, text string }{{"total", m.Total}, {"bad", m.Bad}, {"samples", m.Samples}} {
			if q.text == "" {
				continue
			}
			fields, err := TemplateFields(q.text)
			if err == nil && !slices.Contains(fields, "Hosts") {
				err = fmt.Errorf(
					"asks the same of both sides of a comparison; name the hosts, as in {host=~\"{{.Hosts}}\"}")
			}
			if i := slices.IndexFunc(fields, func(f string) bool { return f == "Host" || f == "Zone" }); err == nil &&
				i >= 0 {
				err = fmt.Errorf("names {{.%s}}, but a comparison asks about many hosts; use {{.Hosts}}", fields[i])
			}
			if err != nil {
				return wrong(path+"."+q.key, "%w", err)
			}
		}
	}
	return "", nil
}

func (c *Config) validGates() (string, error) {
	for i := range c.Gates {
		g := &c.Gates[i]
		path := "gates." + g.Name
		if key, err := g.valid(); err != nil {
			return wrong(strings.TrimSuffix(path+"."+key, "."), "%w", err)
		}
		if g.Compare == nil {
			continue
		}
		if err := c.validCompare(g.Compare); err != nil {
			return wrong(path+".compare.metric", "%w", err)
		}
	}
	return "", nil
}

// phrase names the kind in a sentence.
func (k GateKind) phrase() string {
	switch k {
	case GateQuery:
		return "a query"
	case GateCompare:
		return "a comparison"
	case GateApproval:
		return "an approval"
	case GateProbe, GateWebhook, GateWindow:
	}
	return "a " + string(k)
}

// valid checks a gate by itself; the key is where in the gate the mistake is.
func (g *Gate) valid() (key string, err error) {
	kind := g.Kind()
	asks, a := []GateKind{GateQuery, GateCompare, GateWebhook}, kind.phrase()
	switch {
	case kind == GateProbe && g.Scope != "" && g.Scope != ScopeHost:
		return wrong("scope", "a probe is asked by each host of itself; use scope: host")
	case kind == GateCompare && g.Scope == ScopeHost:
		return wrong("scope", "one host gives too little to compare; use scope: zone, wave or deployment")
	case (kind == GateWindow || kind == GateApproval) && g.Scope != "" && g.Scope != ScopeWave &&
		g.Scope != ScopeDeployment:
		return wrong("scope", "%s opens a wave as a whole; use scope: deployment, or remove it", a)
	case g.MinSamples != 0 && kind != GateQuery && kind != GateCompare:
		return wrong("minSamples", "%s takes no samples; remove it", a)
	case g.FailLimit != 0 && kind == GateProbe:
		return wrong("failLimit", "a probe counts for itself; use probe.failures")
	case g.FailLimit != 0 && !slices.Contains(asks, kind):
		return wrong("failLimit", "%s never fails; remove it", a)
	case g.FailLimit > 1 && kind == GateCompare:
		return wrong("failLimit", "a sequential test fails once and for good; remove it")
	case g.Interval != 0 && kind == GateProbe:
		return wrong("interval", "a probe has its own; use probe.interval")
	case g.Interval != 0 && kind == GateApproval:
		return wrong("interval", "nobody asks an approval again; remove it")
	case g.Interval != 0 && (g.Interval < time.Second || g.Interval > longest):
		return wrong("interval", "asking every %s cannot be; use 1s to 87600h", g.Interval)
	}
	switch kind {
	case GateQuery:
		return g.validQuery()
	case GateWindow:
		_, err := ParseWindow(g.Window)
		return "window", err
	case GateApproval:
		return g.Approval.valid()
	case GateProbe, GateCompare, GateWebhook:
	}
	return "", nil
}

func (g *Gate) validQuery() (key string, err error) {
	q := g.Query
	lower, ok1 := decimal(q.Min)
	upper, ok2 := decimal(q.Max)
	switch {
	case q.Min == "" && q.Max == "":
		return wrong("prometheus", "has no bound, so no value of it could ever fail; add max or min")
	case q.Min != "" && !ok1:
		return wrong("min", "%q is no decimal; write for instance 0.99", q.Min)
	case q.Max != "" && !ok2:
		return wrong("max", "%q is no decimal; write for instance 0.01", q.Max)
	case q.Min != "" && q.Max != "" && lower > upper:
		return wrong("min", "no value is at least %s and at most %s; exchange them", q.Min, q.Max)
	}
	switch {
	case q.Window < 0 || q.Window > longest:
		return wrong("window", "looking back %s cannot be; use 0s to 87600h", q.Window)
	case q.HostLabel != "" && !labelName(q.HostLabel):
		return wrong("hostLabel", "%q is no label of Prometheus; write for instance instance or host", q.HostLabel)
	}
	if err := g.validTemplate(q.Query); err != nil {
		return "prometheus", err
	}
	return "presence", g.validTemplate(q.Presence)
}

// labelName reports whether Prometheus takes the text for the name of a label.
func labelName(text string) bool {
	for i, r := range text {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// validTemplate checks that a query names what a gate of its scope has.
func (g *Gate) validTemplate(query string) error {
	fields, err := TemplateFields(query)
	for _, f := range fields {
		switch {
		case err != nil:
		case f == "Host" && g.Scope != ScopeHost:
			err = errors.New("names {{.Host}}, which only a gate of scope: host has; set it, or use {{.Hosts}}")
		case f == "Zone" && g.Scope != ScopeHost && g.Scope != ScopeZone:
			err = errors.New("names {{.Zone}}, which only a gate of scope: zone or host has; set it, or use {{.Hosts}}")
		}
	}
	return err
}

func (a *ApprovalGate) valid() (key string, err error) {
	switch {
	case a.Count < 0:
		return wrong("approval.count", "%d people cannot approve; use at least 1", a.Count)
	case a.Timeout < 0 || a.Timeout > longest:
		return wrong("approval.timeout", "a timeout of %s cannot be; use 1s to 87600h, or remove it to wait for ever",
			a.Timeout)
	}
	return "", nil
}

func (c *Config) validCompare(g *CompareGate) error {
	m, ok := c.MetricOf(g.Metric)
	switch {
	case !ok:
		return fmt.Errorf("no metric is named %q; define it under metrics", g.Metric)
	case g.Test == TestSPRT && m.Total == "":
		return fmt.Errorf("test: sprt counts errors, and metric %q has no queries total and bad; add them, or use "+
			"test: mannwhitney", m.Name)
	case g.Test == TestMannWhitney && m.Samples == "":
		return fmt.Errorf(
			"test: mannwhitney ranks values, and metric %q has no query samples; add it, or use test: sprt", m.Name)
	}
	return nil
}

// decimal reads a number as people write it: no infinity, no hexadecimal.
func decimal(text string) (float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && strings.Trim(text, "+-.0123456789eE") == ""
}

// validUses checks which gates are asked where.
func (c *Config) validUses() (string, error) {
	if at, err := c.validUse(c.PreGates, true); err != nil {
		return wrong("preGates"+at, "%w", err)
	}
	for i, w := range c.Waves {
		if at, err := c.validUse(w.PreGates, true); err != nil {
			return wrong(fmt.Sprintf("waves[%d].preGates%s", i, at), "wave %q %w", w.Name, err)
		}
		if at, err := c.validUse(w.Gates, false); err != nil {
			return wrong(fmt.Sprintf("waves[%d].gates%s", i, at), "wave %q %w", w.Name, err)
		}
		if i < len(c.Waves)-1 {
			continue
		}
		for k, name := range w.Gates {
			if c.gate(name).Compare != nil {
				return wrong(fmt.Sprintf("waves[%d].gates[%d]", i, k),
					"wave %q is the last, so no host would be left to compare with; ask %q in an "+
						"earlier one", w.Name, name)
			}
		}
	}
	return "", nil
}

func (c *Config) validUse(names []string, before bool) (at string, err error) {
	for i, name := range names {
		at := fmt.Sprintf("[%d]", i)
		g := c.gate(name)
		switch {
		case g == nil:
			return wrong(at, "names a gate that is not defined under gates: %q", name)
		case slices.Contains(names[:i], name):
			return wrong(at, "names gate %q twice; remove one", name)
		case !before && (g.Window != "" || g.Approval != nil):
			return wrong(at, "bakes on %q, but %s is asked before a wave; name it under preGates", name,
				g.Kind().phrase())
		case before && (g.Kind() == GateProbe || g.Kind() == GateCompare):
			return wrong(at, "waits for %q, but %s needs hosts that run the new revision; name it under gates", name,
				g.Kind().phrase())
		case before && (g.Scope == ScopeHost || g.Scope == ScopeZone):
			return wrong(at, "waits for %q of scope %s, but no host of it has begun; use scope: wave or deployment",
				name, g.Scope)
		}
	}
	return "", nil
}

func (c *Config) validBakes() (string, error) {
	for i, w := range c.Waves {
		path := fmt.Sprintf("waves[%d].bake", i)
		compares, samples := false, false
		for _, g := range c.GatesOf(w.Gates) {
			compares = compares || g.Compare != nil
			samples = samples || g.Compare != nil || g.Query != nil
		}
		switch {
		case w.BakeMin < 0 || w.BakeMin > longest:
			return wrong(path+".min", "a bake of %s cannot be; use 0s to 87600h", w.BakeMin)
		case w.BakeMax < 0 || w.BakeMax > longest:
			return wrong(path+".max", "a bake of %s cannot be; use 0s to 87600h", w.BakeMax)
		case w.BakeMax > 0 && w.BakeMax < w.BakeMin:
			return wrong(path+".max", "a bake of at least %s cannot end after %s; raise max or lower min", w.BakeMin,
				w.BakeMax)
		case w.Early && !compares:
			return wrong(path+".early",
				"no gate of wave %q can decide early; add one that compares, or remove early", w.Name)
		case w.Samples < 0:
			return wrong(path+".samples.requests", "%d requests cannot be; use at least 1", w.Samples)
		case w.Samples > 0 && !samples:
			return wrong(path+".samples",
				"no gate of wave %q counts requests; add one with prometheus or compare, or remove samples", w.Name)
		}
	}
	return "", nil
}

func (c *Config) validStage() (string, error) {
	s := c.Stage
	reach := map[string]int{"": 1, "none": 0, "wave": 1, "fleet": 2}
	needs := map[string]int{"": 0, "none": 0, "wave": 1, "deployment": 2}
	if needs[s.Barrier] > reach[s.Prefetch] {
		return wrong("stage.barrier",
			"a barrier of the %s waits for hosts that do not stage yet; use prefetch: %s, or a narrower barrier",
			s.Barrier, map[int]string{1: "wave", 2: "fleet"}[needs[s.Barrier]])
	}
	switch q := s.Quorum; {
	case q == Share{}:
	case !q.Relative || q.PPM <= 0 || q.PPM > Million:
		return wrong("stage.quorum", "%s is no part of the planned tasks; write for instance 95%%, at most 100%%", q)
	case needs[s.Barrier] == 0:
		return wrong("stage.quorum", "a quorum is what a barrier waits for; add stage.barrier: wave or deployment")
	}
	return c.validTastes()
}

func (c *Config) validQuorum() (string, error) {
	switch q := c.Capacity.QuorumGroup; {
	case q == nil:
	case q.Label == "":
		return wrong("capacity.quorumGroup.label", "names no label; write for instance shard")
	case q.MaxDown < 1:
		return wrong("capacity.quorumGroup.maxDown",
			"with %d no host with the label could ever leave service; use at least 1",
			q.MaxDown)
	}
	return "", nil
}

func (c *Config) validTastes() (string, error) {
	sum := time.Duration(0)
	for _, one := range []struct {
		key string
		is  *StageScript
	}{{"warmup", c.Stage.Warmup}, {"taste", c.Stage.Taste}} {
		if one.is == nil {
			continue
		}
		if at := one.is.Script; slices.ContainsFunc(strings.Split(at, "/"), func(part string) bool {
			return part == "" || part == "." || part == ".."
		}) {
			return wrong(one.key+".script", "%q is no script of a revision; write its path below the revision's root, "+
				"such as scripts/%s.sh", at, one.key)
		}
		if d := one.is.Timeout; d != 0 && (d < time.Second || d > time.Hour) {
			return wrong(one.key+".timeout", "%s is no time for a script; use 1s to 1h", d)
		}
		if sum += cmp.Or(one.is.Timeout, StageScriptTimeout); sum >= c.Timeouts.Stage && c.Timeouts.Stage > 0 {
			return wrong(one.key+".timeout", "the scripts may take %s, and a host that has not staged after %s is given up "+
				"(timeouts.stage); lower one, or raise the other", sum, c.Timeouts.Stage)
		}
	}
	return "", nil
}

func (c *Config) validFailures() (string, error) {
	f := c.OnFailure
	for _, one := range []struct {
		key string
		is  Action
	}{{"host", f.Host}, {"wave", f.Wave}, {"gate", f.Gate}, {"test", f.Test}, {"bake", f.Bake}} {
		path, a := "onFailure."+one.key, one.is
		switch {
		case a.Then != "" && a.Do != ActionRollback:
			return wrong(path+".then", "follows a rollback, and nothing is rolled back; remove it")
		case a.Then != "" && a.Scope == ScopeAll:
			return wrong(path+".then",
				"a rollback of all ends the deployment, so nothing follows; remove it or narrow the scope")
		case a.Scope != "" && a.Scope != ScopeAll && a.Do != ActionRollback && one.key != "host":
			return wrong(path+".scope", "belongs to a rollback; %s means the whole deployment", a.Do)
		case a.Scope == ScopeGate && one.key != "gate":
			return wrong(path+".scope", "only a failed gate has a scope of its own; use host, zone, wave or all")
		case one.key == "host" && a.Scope != "" && a.Scope != ScopeHost:
			return wrong(path+".scope",
				"one host within the budget goes back alone; use scope: host, and onFailure.wave for more")
		case one.key == "host" && a.Then != "":
			return wrong(path+".then", "one host within the budget ends nothing; use onFailure.wave")
		}
	}
	if d := c.Decision; d.Then != "" && d.Timeout == 0 {
		return wrong("decision.then", "a decision without a timeout waits for ever; add decision.timeout")
	}
	return "", nil
}

func (c *Config) validLimits() (string, error) {
	if m := c.Capacity.MaxConcurrent; m.Relative && m.PPM == 0 || !m.Relative && m.Count < 1 {
		return wrong("capacity.maxConcurrent",
			"with maxConcurrent %s no host could ever be deployed to; use at least 1", m)
	}
	if f := c.InFlight; f.Serial && f.Max > 0 {
		return wrong("inFlight.max", "serial means one at a time; remove max, or use mode: staggered")
	}
	return "", nil
}

// longest bounds every duration of a config: sums with FSM time cannot overflow.
const longest = 10 * 365 * 24 * time.Hour

func (c *Config) validTimes() (string, error) {
	t := c.Timeouts
	for _, one := range []struct {
		path string
		is   time.Duration
		may  bool // be 0
	}{
		{"timeouts.stage", t.Stage, false},
		{"timeouts.task", t.Task, false},
		{"timeouts.lostAfter", t.LostAfter, false},
		{"timeouts.forgetAfter", t.ForgetAfter, true},
		{"timeouts.deployment", t.Deployment, true},
		{"decision.timeout", c.Decision.Timeout, true},
		{"watchAfter", c.WatchAfter, true},
	} {
		if one.is < 0 || one.is == 0 && !one.may || one.is > longest {
			return wrong(one.path, "a time of %s cannot be; use 1s to 87600h", one.is)
		}
	}
	bakes := time.Duration(0)
	for _, w := range c.Waves {
		bakes = min(bakes+w.BakeMin, longest)
	}
	switch {
	case t.ForgetAfter > 0 && t.ForgetAfter < t.LostAfter:
		return wrong("timeouts.forgetAfter",
			"a host cannot be forgotten after %s, before it is lost after %s; raise it", t.ForgetAfter, t.LostAfter)
	case t.Deployment > 0 && t.Deployment < bakes:
		return wrong("timeouts.deployment", "the waves bake for %s, so no deployment could end within %s; raise it",
			bakes, t.Deployment)
	}
	return "", nil
}
