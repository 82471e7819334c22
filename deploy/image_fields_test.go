package deploy

import (
	"reflect"
	"testing"
)

// Whatever is added to the state is in its image too: a value for every field that
// a snapshot holds comes out again.
func TestAnImageHasEveryField(t *testing.T) {
	s := NewState()
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || f.Tag.Get("json") == "-" {
			continue
		}
		switch x := v.Field(i); x.Kind() {
		case reflect.Slice:
			x.Set(reflect.MakeSlice(x.Type(), 1, 1))
		case reflect.String:
			x.SetString("seven")
		case reflect.Int, reflect.Int64:
			x.SetInt(7)
		case reflect.Uint64:
			x.SetUint(7)
		case reflect.Map: // filled by what the scenarios do
		default:
			t.Fatalf("field %s: how is a %s filled?", f.Name, x.Kind())
		}
	}
	s.RequestLog, s.answers = nil, nil
	got := reflect.ValueOf(s.Image().State()).Elem()
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" && !v.Field(i).IsZero() &&
			f.Type.Kind() != reflect.Map &&
			!reflect.DeepEqual(v.Field(i).Interface(), got.Field(i).Interface()) {
			t.Errorf("%s: %v became %v", f.Name, v.Field(i), got.Field(i))
		}
	}
}
