package hooks

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// fields is a mapping by key, aliases resolved and merges applied.
type fields struct {
	node *yaml.Node
	by   map[string]*yaml.Node
	keys []*yaml.Node
}

func (f fields) get(key string) *yaml.Node { return f.by[key] }

// maxMerge bounds chains of merge keys and aliases; a file written by a
// person has one or two.
const maxMerge = 16

// mapping returns the fields of n, or a problem when n is no mapping. A key
// that comes twice counts with its last value, as in CodeDeploy, and is
// warned about.
func (p *parser) mapping(n *yaml.Node, field string) (fields, bool) {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		p.at(n, field, "a map of keys and values is needed here, not "+kindName(n))
		return fields{}, false
	}
	f := fields{node: n, by: map[string]*yaml.Node{}}
	p.collect(&f, n, field, 0)
	return f, true
}

func (p *parser) collect(f *fields, n *yaml.Node, field string, depth int) {
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), follow(n.Content[i+1])
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			continue
		}
		if own[key.Value] {
			p.warn(key, join(field, key.Value), "the key comes twice: the last value counts")
		}
		if f.by[key.Value] == nil || own[key.Value] {
			if f.by[key.Value] == nil {
				f.keys = append(f.keys, key)
			}
			f.by[key.Value] = value
		}
		own[key.Value] = true
	}
	for i := 0; i+1 < len(n.Content) && depth < maxMerge; i += 2 {
		if n.Content[i].ShortTag() == "!!merge" {
			p.merge(f, follow(n.Content[i+1]), field, depth)
		}
	}
}

func (p *parser) merge(f *fields, from *yaml.Node, field string, depth int) {
	switch {
	case from == nil:
	case from.Kind == yaml.MappingNode:
		p.collect(f, from, field, depth+1)
	case from.Kind == yaml.SequenceNode:
		for _, c := range from.Content {
			if c = follow(c); c != nil && c.Kind == yaml.MappingNode && p.room(from, field, 1) {
				p.collect(f, c, field, depth+1)
			}
		}
	}
}

// keys warns of keys that nobody reads: CodeDeploy ignores them, and so do we.
// Those that begin with "x-" or "." are where people keep anchors.
func (p *parser) keys(m fields, field string, legal ...string) {
	for _, key := range m.keys {
		if slices.Contains(legal, key.Value) || strings.HasPrefix(key.Value, "x-") ||
			strings.HasPrefix(key.Value, ".") {
			continue
		}
		p.warn(key, join(field, key.Value), "unknown key, which is ignored"+didYouMean(key.Value, legal))
	}
}

// list returns the items of a sequence; null is an empty one.
func (p *parser) list(n *yaml.Node, field string) []*yaml.Node {
	if n = follow(n); n == nil || isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.at(n, field, "a list is needed here, not "+kindName(n))
		return nil
	}
	if !p.room(n, field, len(n.Content)) {
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		items[i] = follow(c)
	}
	return items
}

// room counts entries against maxEntries and reports the first excess.
func (p *parser) room(n *yaml.Node, field string, count int) bool {
	over := p.entries > maxEntries
	p.entries += count
	if p.entries > maxEntries && !over {
		p.at(n, field, "the file has more than "+strconv.Itoa(maxEntries)+" entries")
	}
	return p.entries <= maxEntries
}

// text returns a scalar as written, "" for null or nothing, and a problem for
// a list or map.
func (p *parser) text(n *yaml.Node, field string) string {
	if n = follow(n); n == nil || isNull(n) {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		p.at(n, field, "a single value is needed here, not "+kindName(n))
		return ""
	}
	return n.Value
}

// follow resolves aliases; a chain that does not end is nothing.
func follow(n *yaml.Node) *yaml.Node {
	for range maxMerge {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func position(n *yaml.Node) Position {
	if n == nil {
		return Position{}
	}
	return Position{n.Line, n.Column}
}

func kindName(n *yaml.Node) string {
	switch {
	case n == nil:
		return "nothing"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a map"
	case isNull(n):
		return "null"
	}
	return "the value " + quoted(n)
}

func quoted(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kindName(n)
	}
	v := n.Value
	if len(v) > 80 {
		v = v[:80] + "..."
	}
	return strconv.Quote(v)
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}
