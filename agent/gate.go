package agent

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/probe"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// gate is a probe of the application with its name.
type gate struct {
	Name  string
	Probe probe.Probe
	// Wrong says why the probe cannot be used; it then answers unknown.
	Wrong string `json:",omitempty"`
}

// Defaults of a probe that does not state them: an agent asks its own host, so
// an answer that takes a second is a failure in itself.
const (
	probeInterval = 2 * time.Second
	probeTimeout  = time.Second
	probeFailures = 3
)

func gates(list []*agentv1.Probe) []gate {
	var out []gate
	for _, p := range list {
		g := gate{Name: p.Name, Probe: probe.Probe{
			HTTP: p.Http, Expect: int(p.Expect), TCP: p.Tcp,
			Consecutive: cmp.Or(int(p.Consecutive), 1), Failures: cmp.Or(int(p.Failures), probeFailures),
			Interval: cmp.Or(time.Duration(p.IntervalNs), probeInterval), Timeout: cmp.Or(time.Duration(p.TimeoutNs),
				probeTimeout),
		}}
		switch len(p.Command) {
		case 0:
		case 1:
			g.Probe.Command = p.Command[0]
		default:
			g.Wrong = fmt.Sprintf("command %q: a command probe is one script of the revision, without arguments",
				p.Command)
		}
		out = append(out, g)
	}
	return out
}

// expand puts the agent's variables into the addresses, so that one deployment
// probes hosts whose ports differ.
func (g gate) expand(env map[string]string) gate {
	var missing []string
	value := func(name string) string {
		v, ok := env[name]
		if !ok {
			missing = append(missing, name)
		}
		return v
	}
	g.Probe.HTTP, g.Probe.TCP = os.Expand(g.Probe.HTTP, value), os.Expand(g.Probe.TCP, value)
	if len(missing) > 0 {
		g.Wrong = fmt.Sprintf("%s uses ${%s}, which the agent's env does not set", g.what(),
			strings.Join(missing, "}, ${"))
	}
	if err := g.Probe.Validate(); err != nil && g.Wrong == "" {
		g.Wrong = err.Error()
	}
	return g
}

// what says what a probe asks, for evidence.
func (g gate) what() string {
	switch {
	case g.Probe.HTTP != "":
		return "GET " + g.Probe.HTTP
	case g.Probe.TCP != "":
		return "connect to " + g.Probe.TCP
	}
	return "script " + g.Probe.Command
}

// evidence is the text of n failed attempts in a row.
func (g gate) evidence(text string, n int) string {
	times := ""
	if n > 1 {
		times = fmt.Sprintf(", %d times in a row", n)
	}
	return clip(fmt.Sprintf("%s: %s%s", g.what(), text, times), 512)
}
