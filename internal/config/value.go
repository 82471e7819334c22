package config

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v4"
)

// Value is one value of a file, handed to an [Unmarshaler].
type Value struct {
	// Path is the value's place, such as "waves[0].select".
	Path string

	doc   *Document
	node  *yaml.Node
	depth int
}

// Text returns a scalar as written; false for a mapping or list.
func (v Value) Text() (string, bool) {
	return v.node.Value, v.node.Kind == yaml.ScalarNode
}

// Describe says what the value is, for messages: "a mapping", "a list" or the
// quoted scalar.
func (v Value) Describe() string { return describe(v.node) }

// Decode reads the value into out, a pointer of a type that is not an
// [Unmarshaler] itself (define a plain type of it to avoid that).
func (v Value) Decode(out any) {
	v.doc.value(v.node, v.Path, reflect.ValueOf(out).Elem(), "", v.depth+1)
}

// Errorf records what is wrong with the value.
func (v Value) Errorf(format string, args ...any) {
	v.doc.add(v.node, v.Path, fmt.Sprintf(format, args...))
}

// Clean reports whether no problem was found in the value so far.
func (v Value) Clean() bool { return v.doc.Clean(v.Path) }
