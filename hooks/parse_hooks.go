package hooks

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

func (p *parser) hooks(n *yaml.Node, into map[string][]Script) {
	if n == nil || isNull(n) {
		return
	}
	m, ok := p.mapping(n, "hooks")
	if !ok {
		return
	}
	for _, key := range m.keys {
		field := "hooks." + key.Value
		var scripts []Script
		for i, item := range p.list(m.get(key.Value), field) {
			if s, ok := p.script(item, fmt.Sprintf("%s[%d]", field, i)); ok {
				scripts = append(scripts, s)
			}
		}
		into[key.Value] = scripts
	}
}

func (p *parser) script(item *yaml.Node, field string) (Script, bool) {
	m, ok := p.mapping(item, field)
	if !ok {
		return Script{}, false
	}
	p.keys(m, field, "location", "timeout", "runas", "sudo", "idempotent")
	before := len(p.problems)
	s := Script{
		Location:   strings.TrimSpace(p.text(m.get("location"), field+".location")),
		Timeout:    p.timeout(m.get("timeout"), field+".timeout"),
		RunAs:      strings.TrimSpace(p.text(m.get("runas"), field+".runas")),
		Sudo:       p.boolean(m.get("sudo"), field+".sudo"),
		Idempotent: p.boolean(m.get("idempotent"), field+".idempotent"),
		Pos:        position(m.node),
	}
	if len(p.problems) == before && s.Location == "" {
		p.at(m.node, field+".location", "missing: a script needs a location in the revision")
	}
	if strings.ContainsRune(s.Location+s.RunAs, 0) {
		p.at(m.node, field, "a value holds a NUL byte")
	}
	return s, len(p.problems) == before
}

func (p *parser) timeout(n *yaml.Node, field string) time.Duration {
	text := strings.ReplaceAll(strings.TrimSpace(p.text(n, field)), "_", "")
	if text == "" {
		return DefaultTimeout
	}
	seconds, err := strconv.ParseFloat(text, 64)
	switch seconds = math.Trunc(seconds); {
	case err != nil || math.IsNaN(seconds):
		p.at(n, field, "invalid timeout "+quoted(n)+": a number of seconds is needed")
	case seconds < 1:
		p.at(n, field, "invalid timeout "+quoted(n)+": it must be 1 second or more")
	case seconds > math.MaxInt32:
		p.at(n, field, "invalid timeout "+quoted(n)+": it is over 68 years")
	default:
		return time.Duration(seconds) * time.Second
	}
	return DefaultTimeout
}

// boolean knows the words of YAML 1.1, which CodeDeploy's parser speaks.
func (p *parser) boolean(n *yaml.Node, field string) bool {
	text := strings.ToLower(p.text(n, field))
	if slices.Contains([]string{"", "false", "no", "off", "n"}, text) {
		return false
	}
	if !slices.Contains([]string{"true", "yes", "on", "y"}, text) {
		p.at(n, field, "invalid value "+quoted(n)+": use true or false")
	}
	return true
}
