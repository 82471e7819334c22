package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of a file: more is a mistake, or an attack by aliases.
const (
	maxBytes  = 1 << 20
	maxValues = 100_000
	maxDepth  = 64
)

// Document is one YAML file being read: it remembers where every value stood
// and collects what is wrong. It is for one goroutine.
type Document struct {
	file   string
	lines  []string
	root   *yaml.Node
	at     map[string]*yaml.Node // of decoded values, by path
	values int
	errs   Errors
}

// Parse reads the form of a file. Its errors are kept in the document.
func Parse(data []byte, filename string) *Document {
	d := &Document{file: filename, at: map[string]*yaml.Node{}}
	if len(data) > maxBytes {
		d.add(nil, "", fmt.Sprintf("the file has %d bytes; at most %d are read", len(data), maxBytes))
		return d
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	d.lines = strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	if !utf8.Valid(data) {
		d.add(nil, "", "the file is not UTF-8 text")
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || isNull(doc.Content[0])) {
		return d
	}
	if err != nil {
		d.syntax(err)
		return d
	}
	d.root = doc.Content[0]
	switch err := dec.Decode(&second); {
	case err == nil:
		d.add(&second, "", "a second document begins here; only one is read")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	return d
}

// Decode parses a file into out, a pointer to a struct. The error is [Errors].
func Decode(data []byte, filename string, out any) error {
	d := Parse(data, filename)
	d.Decode(out)
	return d.Err()
}

// Load reads the file at path into out. A missing file is an error for which
// errors.Is(err, fs.ErrNotExist) holds.
func Load(path string, out any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return Decode(data, path, out)
}

// syntax records an error of the YAML parser where it says it is.
func (d *Document) syntax(err error) {
	var le *yaml.LoadError
	if errors.As(err, &le) {
		line := min(max(le.Mark.Line, 1), len(d.lines))
		d.put(line, max(le.Mark.Column, 1), "", "not valid YAML: "+le.Message)
		return
	}
	d.add(nil, "", "not valid YAML: "+strings.TrimPrefix(err.Error(), "yaml: "))
}

// Errorf records a problem of the value at a path such as
// "groups.prod.waves[0].select". Where the file does not name it, the problem
// stands at the nearest value above.
func (d *Document) Errorf(path, format string, args ...any) {
	d.add(d.find(path), path, fmt.Sprintf(format, args...))
}

// Has reports whether the file gave a value at the path.
func (d *Document) Has(path string) bool { return d.at[path] != nil }

// Clean reports whether no problem was found at the path or below it; the
// empty path is the whole file.
func (d *Document) Clean(path string) bool {
	for _, e := range d.errs {
		rest, below := strings.CutPrefix(e.Field, path)
		if path == "" || below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// At returns the line and column of the value at a path, or of the nearest one
// above it; zero when the file is empty.
func (d *Document) At(path string) (line, column int) {
	if n := d.find(path); n != nil {
		return n.Line, n.Column
	}
	return 0, 0
}

// Err returns nil, or all problems as [Errors] in the order of their lines.
func (d *Document) Err() error { return d.errs.err() }

func (d *Document) find(path string) *yaml.Node {
	for {
		if n := d.at[path]; n != nil {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.root
		}
		path = path[:i]
	}
}

// add records a problem at a node; nil is the file as a whole.
func (d *Document) add(n *yaml.Node, field, text string) {
	if n == nil {
		d.errs = append(d.errs, &Error{File: d.file, Field: field, Text: text})
		return
	}
	d.put(n.Line, n.Column, field, text)
}

func (d *Document) put(line, column int, field, text string) {
	e := &Error{File: d.file, Line: line, Column: column, Field: field, Text: text}
	if line >= 1 && line <= len(d.lines) {
		e.Source = d.lines[line-1]
	}
	d.errs = append(d.errs, e)
}
