package hooks

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v4"
)

func (p *parser) files(n *yaml.Node) []File {
	var files []File
	for i, item := range p.list(n, "files") {
		field := fmt.Sprintf("files[%d]", i)
		m, ok := p.mapping(item, field)
		if !ok {
			continue
		}
		if f, ok := p.fileEntry(m, field); ok {
			files = append(files, f)
		}
	}
	return files
}

func (p *parser) fileEntry(m fields, field string) (File, bool) {
	p.keys(m, field, "source", "destination")
	before := len(p.problems)
	f := File{
		Source:      p.text(m.get("source"), field+".source"),
		Destination: p.text(m.get("destination"), field+".destination"),
		Pos:         position(m.node),
	}
	switch {
	case len(p.problems) > before:
	case f.Source == "" && f.Destination == "":
		p.at(m.node, field, "source and destination are missing")
	case f.Source == "":
		p.at(m.node, field+".source", fmt.Sprintf("destination %q has no source: add source", f.Destination))
	case f.Destination == "":
		p.at(m.node, field+".destination", fmt.Sprintf("source %q has no destination: add destination", f.Source))
	case !path.IsAbs(f.Destination):
		p.at(m.get("destination"), field+".destination",
			fmt.Sprintf("%q is not a full path: it must begin with /", f.Destination))
	case escapes(f.Source):
		p.at(m.get("source"), field+".source", fmt.Sprintf("%q leads out of the revision", f.Source))
	case strings.ContainsRune(f.Source+f.Destination, 0):
		p.at(m.node, field, "a path holds a NUL byte")
	default:
		return f, true
	}
	return File{}, false
}

// escapes reports whether a path of the revision, whose leading slash means
// the revision's root, names something outside it.
func escapes(location string) bool {
	rel := path.Clean(strings.TrimLeft(location, "/"))
	return rel == ".." || strings.HasPrefix(rel, "../")
}
