package hooks

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxSpec bounds an appspec: real ones are below 20 KB, and a parser of
// foreign text wants a bound.
const maxSpec = 1 << 20

// maxEntries bounds the entries of all lists together, which aliases could
// otherwise multiply.
const maxEntries = 20_000

// Parse reads an appspec. The name is only used in messages. The error is an
// *InvalidError with every problem found; unknown keys are ignored and only
// the first YAML document counts, as CodeDeploy has it.
func Parse(data []byte, filename string) (*AppSpec, error) {
	p := &parser{file: filename}
	spec := &AppSpec{Filename: filename, Hooks: map[string][]Script{}}
	if root := p.document(data); root != nil {
		p.top(root, spec)
	}
	spec.Warnings = p.warnings
	if len(p.problems) > 0 {
		return nil, &InvalidError{Problems: p.problems}
	}
	return spec, nil
}

type parser struct {
	file     string
	entries  int
	problems []Problem
	warnings []Problem
}

// document returns the root of the first document, or nil after a problem.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxSpec {
		p.add(Position{}, "", "the file has "+strconv.Itoa(len(data))+" bytes: an appspec may have 1 MiB")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var doc yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc)
	var le *yaml.LoadError
	switch {
	case errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || isNull(doc.Content[0])):
		p.add(Position{1, 1}, "", "the file is empty: version: 0.0 and os: linux are needed")
		return nil
	case errors.As(err, &le):
		p.add(Position{max(le.Mark.Line, 1), max(le.Mark.Column, 1)}, "", "not valid YAML: "+le.Message)
		return nil
	case err != nil:
		p.add(Position{1, 1}, "", "not valid YAML: "+strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	return doc.Content[0]
}

func (p *parser) top(root *yaml.Node, spec *AppSpec) {
	m, ok := p.mapping(root, "")
	if !ok {
		return
	}
	p.keys(m, "", "version", "os", "files", "file_exists_behavior", "permissions", "hooks")
	p.version(m)
	p.os(m)
	spec.Files = p.files(m.get("files"))
	spec.FileExists = p.fileExists(m.get("file_exists_behavior"))
	spec.Permissions = p.permissions(m.get("permissions"))
	p.hooks(m.get("hooks"), spec.Hooks)
}

// version must be the number 0: CodeDeploy compares with 0.0, so the integer 0
// is right and the string "0.0" is not.
func (p *parser) version(m fields) {
	n := m.get("version")
	if n == nil || isNull(n) {
		p.at(m.node, "version", "missing: add version: 0.0")
		return
	}
	tag := n.ShortTag()
	v, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
	if n.Kind != yaml.ScalarNode || tag != "!!float" && tag != "!!int" || err != nil || v != 0 {
		p.at(n, "version", "invalid version "+quoted(n)+": the only version is the number 0.0")
	}
}

func (p *parser) os(m fields) {
	n := m.get("os")
	switch {
	case n == nil || isNull(n):
		p.at(m.node, "os", "missing: add os: linux")
	case n.Kind != yaml.ScalarNode || n.Value != "linux":
		p.at(n, "os", "unsupported operating system "+quoted(n)+": only linux, in lower case, is supported")
	}
}

func (p *parser) fileExists(n *yaml.Node) FileExists {
	if n == nil || isNull(n) {
		return FileExistsUnset
	}
	for b := FileExistsDisallow; b <= FileExistsRetain; b++ {
		if n.Kind == yaml.ScalarNode && n.Value == b.String() {
			return b
		}
	}
	p.at(n, "file_exists_behavior", "unknown value "+quoted(n)+": use DISALLOW, OVERWRITE or RETAIN, in capitals")
	return FileExistsUnset
}

func (p *parser) add(pos Position, field, text string) {
	p.problems = append(p.problems, Problem{File: p.file, Pos: pos, Field: field, Text: text})
}

func (p *parser) at(n *yaml.Node, field, text string) { p.add(position(n), field, text) }

func (p *parser) warn(n *yaml.Node, field, text string) {
	p.warnings = append(p.warnings, Problem{File: p.file, Pos: position(n), Field: field, Text: text})
}
