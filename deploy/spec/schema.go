package spec

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/internal/config"
)

// object is a JSON Schema or a part of one.
type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of deploy.yaml, for editors. It
// is made of the structs that the file is decoded into. It knows keys and forms;
// what only Parse knows, such as which keys go together, it lets pass.
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[file](), "")
	s["$defs"] = object{"config": schemaStruct(reflect.TypeFor[configFile]())}
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Groundswell deploy.yaml"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // maps of texts and numbers
	}
	return append(b, '\n')
}

func text(pattern string) object { return object{"type": "string", "pattern": pattern} }

func count(least int) object { return object{"type": "integer", "minimum": least} }

func either(parts ...object) object { return object{"oneOf": parts} }

// The forms of scalars that are no plain text.
const (
	durationForm = `^(0|([0-9]+d)?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))*)$`
	shareForm    = `^[0-9]+(\.[0-9]{1,4})?%$`
	rateForm     = `^[0-9.]+ *([kKMGT]i?)?B/s$`
)

// schemaForm is the schema of a type that reads itself, nil for others.
func schemaForm(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return either(text(durationForm), object{"const": 0})
	case reflect.TypeFor[limit]():
		return either(text(durationForm), object{"const": 0}, object{"const": "none"})
	case reflect.TypeFor[config.Share]():
		return either(text(shareForm), count(0))
	case reflect.TypeFor[zones]():
		return either(object{"const": "all"}, count(1))
	case reflect.TypeFor[bandwidth]():
		return text(rateForm)
	case reflect.TypeFor[effect]():
		return text(`^[0-9.]+x$`)
	case reflect.TypeFor[commandFile]():
		return either(text(`\S`), object{"type": "array", "items": object{"type": "string"}, "minItems": 1})
	case reflect.TypeFor[selectFile]():
		return either(object{"const": "remainder"}, schemaOf(reflect.TypeFor[selectPart](), ""))
	case reflect.TypeFor[configRef]():
		return either(object{"type": "string"}, object{"$ref": "#/$defs/config"})
	case reflect.TypeFor[configFile]():
		return object{"$ref": "#/$defs/config"}
	}
	return nil
}

func schemaOf(t reflect.Type, tag reflect.StructTag) object {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if form := schemaForm(t); form != nil {
		return form
	}
	switch t.Kind() {
	case reflect.Struct:
		return schemaStruct(t)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), tag)}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), tag)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return schemaInt(tag)
	case reflect.String:
		if legal := strings.Fields(tag.Get("enum")); len(legal) > 0 {
			return object{"enum": legal}
		}
		return object{"type": []string{"string", "number", "boolean"}} // text is read as it is written
	default:
		panic("spec: no schema of a " + t.String())
	}
}

func schemaStruct(t reflect.Type) object {
	keys, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		key, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" {
			continue // of a later version
		}
		keys[key] = schemaOf(f.Type, f.Tag)
		if rest == "required" {
			required = append(required, key)
		}
	}
	out := object{"type": "object", "properties": keys, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func schemaInt(tag reflect.StructTag) object {
	out := object{"type": "integer"}
	for key, word := range map[string]string{"min": "minimum", "max": "maximum"} {
		if n, err := strconv.Atoi(tag.Get(key)); err == nil {
			out[word] = n
		}
	}
	return out
}
