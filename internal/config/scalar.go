package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

func (d *Document) scalar(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.ScalarNode {
		d.add(n, path, fmt.Sprintf("needs %s, not %s", wanted(v, tag), describe(n)))
		return
	}
	if err := assign(v, n.Value, tag); err != nil {
		d.add(n, path, err.Error())
	}
}

// assign sets v from text, within what the tag allows.
func assign(v reflect.Value, text string, tag reflect.StructTag) error {
	if s, ok := v.Addr().Interface().(setter); ok {
		return s.Set(text)
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		dur, err := ParseDuration(text)
		v.SetInt(int64(dur))
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return enum(text, tag)
	case reflect.Bool:
		return assignBool(v, text)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return assignInt(v, text, tag)
	default:
		panic("config: no rule reads a " + v.Type().String())
	}
}

func assignBool(v reflect.Value, text string) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("needs true or false, not %q", text)
	}
	v.SetBool(text == "true")
	return nil
}

func assignInt(v reflect.Value, text string, tag reflect.StructTag) error {
	i, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		return fmt.Errorf("needs a whole number, not %q", text)
	}
	if low, err := strconv.ParseInt(tag.Get("min"), 10, 64); err == nil && i < low {
		return fmt.Errorf("must be at least %d, not %d", low, i)
	}
	if high, err := strconv.ParseInt(tag.Get("max"), 10, 64); err == nil && i > high {
		return fmt.Errorf("must be at most %d, not %d", high, i)
	}
	v.SetInt(i)
	return nil
}

// enum checks text against the legal words of the tag.
func enum(text string, tag reflect.StructTag) error {
	legal := strings.Fields(tag.Get("enum"))
	if len(legal) == 0 || slices.Contains(legal, text) {
		return nil
	}
	later := strings.Fields(tag.Get("later"))
	if slices.Contains(later, text) {
		return fmt.Errorf("%q is not supported yet; use %s", text, either(legal))
	}
	return fmt.Errorf("%q is not legal; use %s", text, either(legal))
}

// wanted says what a field takes, for people.
func wanted(v reflect.Value, tag reflect.StructTag) string {
	if w, ok := v.Addr().Interface().(interface{ Wanted() string }); ok {
		return w.Wanted()
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return Duration(0).Wanted()
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	default:
		if legal := strings.Fields(tag.Get("enum")); len(legal) > 0 {
			return either(legal)
		}
		return "text"
	}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe says what a node is, for people.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	default:
		return strconv.Quote(n.Value)
	}
}

func list(words []string) string { return strings.Join(words, ", ") }

func either(words []string) string {
	if len(words) < 2 {
		return list(words)
	}
	last := len(words) - 1
	return list(words[:last]) + " or " + words[last]
}
