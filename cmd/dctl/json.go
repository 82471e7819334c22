package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// field is a member of an object, in an order that we choose.
type field struct {
	name  string
	value any
}

// object is a JSON object with members in order. Messages are written whole:
// every field under its name of the .proto, also zero ones, numbers as numbers.
type object []field

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		v, err := encode(f.value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", f.name, err)
		}
		b.WriteString(strconv.Quote(f.name) + ":")
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode writes a value on one line, without HTML's escapes.
func encode(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		v = messageObject(m.ProtoReflect())
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// messages turns a list of messages into one for JSON; no list is an empty one.
func messages[M proto.Message](list []M) []any {
	out := make([]any, 0, len(list))
	for _, m := range list {
		out = append(out, messageObject(m.ProtoReflect()))
	}
	return out
}

func messageObject(m protoreflect.Message) any {
	if !m.IsValid() {
		return nil
	}
	out := object{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		out = append(out, field{string(f.Name()), fieldValue(f, m.Get(f))})
	}
	return out
}

func fieldValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.IsMap():
		out := map[string]any{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out[k.String()] = scalarValue(f.MapValue(), v)
			return true
		})
		return out
	case f.IsList():
		out := make([]any, v.List().Len())
		for i := range out {
			out[i] = scalarValue(f, v.List().Get(i))
		}
		return out
	}
	return scalarValue(f, v)
}

func scalarValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return messageObject(v.Message())
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	default:
		return v.Interface()
	}
}

// emit writes one object on one line of standard output.
func (c *cli) emit(v any) error { return writeJSON(c.out, v) }

func writeJSON(w io.Writer, v any) error {
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
