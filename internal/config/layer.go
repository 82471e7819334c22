package config

import (
	"reflect"
	"strings"
	"unicode"
)

// Layer is a source of values that lies over a file: the environment, or the
// flags that were given.
type Layer struct {
	// Name returns how people know a key there, such as DCOORD_DATA_DIR.
	Name func(key string) string
	// Lookup returns the value of that name; false if it is not given.
	Lookup func(name string) (string, bool)
}

// Env is the layer of environment variables: the key listen.dataDir is
// PREFIX_LISTEN_DATA_DIR. The lookup is os.LookupEnv, or a test's. An empty
// variable counts as not given.
func Env(prefix string, lookup func(string) (string, bool)) Layer {
	return Layer{
		Name: func(key string) string { return prefix + "_" + strings.ToUpper(words(key, "_")) },
		Lookup: func(name string) (string, bool) {
			v, ok := lookup(name)
			return v, ok && v != ""
		},
	}
}

// Flags is the layer of flags: the key listen.dataDir is --listen-data-dir.
// The lookup gets the name without dashes and answers flags that were given.
func Flags(lookup func(string) (string, bool)) Layer {
	return Layer{
		Name:   func(key string) string { return "--" + words(key, "-") },
		Lookup: func(name string) (string, bool) { return lookup(strings.TrimPrefix(name, "--")) },
	}
}

// Overlay sets what the layers give in out, a pointer to a struct that already
// holds the defaults and the file; a later layer wins. So a program calls
//
//	file := defaults()
//	err := config.Load(path, &file)
//	err = config.Overlay(&file, config.Env("DCOORD", os.LookupEnv), config.Flags(given))
//
// Keys are those of scalars and of lists of them, which are written with
// commas. Problems name the variable or flag.
func Overlay(out any, layers ...Layer) error {
	var errs Errors
	for _, l := range layers {
		errs = append(errs, l.lay("", reflect.ValueOf(out).Elem())...)
	}
	return errs.err()
}

func (l Layer) lay(path string, v reflect.Value) Errors {
	var errs Errors
	for _, f := range reflect.VisibleFields(v.Type()) {
		key, _ := tagOf(f)
		if key == "" {
			continue
		}
		at, target := join(path, key), v.FieldByIndex(f.Index)
		if target.Kind() == reflect.Struct && !isSetter(target) {
			errs = append(errs, l.lay(at, target)...)
			continue
		}
		if err := l.set(at, target, f.Tag); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func isSetter(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(setter)
	return ok
}

func (l Layer) set(key string, v reflect.Value, tag reflect.StructTag) *Error {
	if !layered(v.Type()) {
		return nil
	}
	name := l.Name(key)
	text, ok := l.Lookup(name)
	if !ok {
		return nil
	}
	if err := assignAny(v, text, tag); err != nil {
		return &Error{File: name, Text: err.Error()}
	}
	return nil
}

// layered reports whether a value of the type can be written as one text.
func layered(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return t.Elem().Kind() != reflect.Slice && layered(t.Elem())
	case reflect.Map, reflect.Interface:
		return false
	case reflect.Struct:
		return reflect.PointerTo(t).Implements(reflect.TypeFor[setter]())
	default:
		return true
	}
}

func assignAny(v reflect.Value, text string, tag reflect.StructTag) error {
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if err := assignAny(p.Elem(), text, tag); err != nil {
			return err
		}
		v.Set(p)
		return nil
	case reflect.Slice:
		return assignList(v, text, tag)
	default:
		return assign(v, text, tag)
	}
}

func assignList(v reflect.Value, text string, tag reflect.StructTag) error {
	out := reflect.MakeSlice(v.Type(), 0, 4)
	for part := range strings.SplitSeq(text, ",") {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := assign(item, strings.TrimSpace(part), tag); err != nil {
			return err
		}
		out = reflect.Append(out, item)
	}
	v.Set(out)
	return nil
}

// words splits a key such as listen.dataDir at dots and capitals.
func words(key, sep string) string {
	var b strings.Builder
	last := '.'
	for _, r := range key {
		switch {
		case r == '.':
			b.WriteString(sep)
		case unicode.IsUpper(r) && !unicode.IsUpper(last) && last != '.':
			b.WriteString(sep + string(unicode.ToLower(r)))
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		last = r
	}
	return b.String()
}
