package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/groundswell/groundswell/internal/near"
	"go.yaml.in/yaml/v4"
)

// Unmarshaler is implemented by a type (by pointer) that reads its own value,
// for instance one that is either a word or a mapping. It records what is
// wrong with v.Errorf.
type Unmarshaler interface {
	UnmarshalConfig(v Value)
}

// setter is implemented by scalar types that read themselves from text; it is
// also what flag packages ask of a value.
type setter interface {
	Set(text string) error
}

// Decode reads the document into out, a pointer to a struct.
func (d *Document) Decode(out any) {
	v := reflect.ValueOf(out).Elem()
	if d.root != nil {
		d.value(d.root, "", v, "", 0)
		return
	}
	if len(d.errs) == 0 && v.Kind() == reflect.Struct {
		d.missing(nil, "", v.Type(), map[string]bool{})
	}
}

// value decodes n into v. The tag is that of the field that holds it.
func (d *Document) value(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag, depth int) {
	if n = d.enter(n, path, depth); n == nil {
		return
	}
	d.at[path] = n
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if isNull(n) {
		d.add(n, path, "has no value; give one or remove the key")
		return
	}
	if u, ok := v.Addr().Interface().(Unmarshaler); ok {
		u.UnmarshalConfig(Value{doc: d, node: n, Path: path, depth: depth})
		return
	}
	d.kind(n, path, v, tag, depth)
}

func (d *Document) kind(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag, depth int) {
	_, set := v.Addr().Interface().(setter)
	switch {
	case set || v.Type() == reflect.TypeFor[time.Duration]():
		d.scalar(n, path, v, tag)
	case v.Kind() == reflect.Struct:
		d.mapping(n, path, v, depth)
	case v.Kind() == reflect.Map:
		d.dict(n, path, v, tag, depth)
	case v.Kind() == reflect.Slice:
		d.list(n, path, v, tag, depth)
	default:
		d.scalar(n, path, v, tag)
	}
}

// enter follows aliases and keeps the bounds; nil is "read no further".
func (d *Document) enter(n *yaml.Node, path string, depth int) *yaml.Node {
	d.values++
	if d.values == maxValues || depth == maxDepth {
		d.add(n, path, "the file nests or repeats too much, by aliases perhaps; write it out")
	}
	if d.values >= maxValues || depth >= maxDepth {
		return nil
	}
	for range maxDepth {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

func (d *Document) mapping(n *yaml.Node, path string, v reflect.Value, depth int) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, fmt.Sprintf("needs a mapping with keys of %s, not %s", list(keysOf(v.Type())), describe(n)))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for key, value := range d.pairs(n, path, seen) {
		f, ok := fields[key.Value]
		if !ok {
			d.unknown(key, path, v.Type())
			continue
		}
		d.value(value, join(path, key.Value), v.FieldByIndex(f.Index), f.Tag, depth+1)
	}
	d.missing(n, path, v.Type(), seen)
}

// pairs yields the keys of a mapping with their values; keys that are no text
// or come twice are reported instead.
func (d *Document) pairs(n *yaml.Node, path string, seen map[string]bool) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			switch {
			case key.ShortTag() == "!!merge":
				d.add(key, path, "merge keys (<<) are not read here; write the keys out")
			case key.Kind != yaml.ScalarNode:
				d.add(key, path, "a key must be a word, not "+describe(key))
			case seen[key.Value]:
				d.add(key, join(path, key.Value), "the key comes twice; remove one")
			default:
				seen[key.Value] = true
				if !yield(key, n.Content[i+1]) {
					return
				}
			}
		}
	}
}

func (d *Document) unknown(key *yaml.Node, path string, t reflect.Type) {
	if laterOf(t)[key.Value] {
		d.add(key, join(path, key.Value), "not supported yet; remove the key")
		return
	}
	known := keysOf(t)
	text := fmt.Sprintf("unknown key %q", key.Value)
	if meant := near.Name(key.Value, known); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", meant)
	} else if meant = near.Name(key.Value, laterKeys(t)); meant != "" {
		text += fmt.Sprintf("; the nearest, %q, is not supported yet", meant)
	} else {
		text += "; known are " + list(known)
	}
	d.add(key, join(path, key.Value), text)
}

func (d *Document) missing(n *yaml.Node, path string, t reflect.Type, seen map[string]bool) {
	for _, f := range reflect.VisibleFields(t) {
		key, required := tagOf(f)
		if required && !seen[key] {
			d.add(n, path, fmt.Sprintf("the key %q is missing", key))
		}
	}
}

func (d *Document) dict(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag, depth int) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, "needs a mapping of names to values, not "+describe(n))
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for key, value := range d.pairs(n, path, map[string]bool{}) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(value, join(path, key.Value), item, tag, depth+1)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	}
}

func (d *Document) list(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.add(n, path, "needs a list, such as [a, b], not "+describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(c, fmt.Sprintf("%s[%d]", path, i), out.Index(i), tag, depth+1)
	}
	v.Set(out)
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }
