package config

import (
	"reflect"
	"slices"
	"strings"
)

// tagOf returns the key that a field is read from, "" for none.
func tagOf(f reflect.StructField) (key string, required bool) {
	if !f.IsExported() {
		return "", false
	}
	key, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key, rest == "required"
}

func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if key, _ := tagOf(f); key != "" {
			out[key] = f
		}
	}
	return out
}

func keysOf(t reflect.Type) []string {
	var out []string
	for _, f := range reflect.VisibleFields(t) {
		if key, _ := tagOf(f); key != "" {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// laterKeys are the keys that a later version will know.
func laterKeys(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		if f := t.Field(i); f.Name == "_" {
			out = append(out, strings.Fields(f.Tag.Get("later"))...)
		}
	}
	return out
}

func laterOf(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for _, key := range laterKeys(t) {
		out[key] = true
	}
	return out
}
