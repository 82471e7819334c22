package spec_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/groundswell/groundswell/deploy/spec"
	"github.com/groundswell/groundswell/internal/config"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(spec.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("deploy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("deploy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inForm are parts of messages about keys and forms, which a schema can know;
// other mistakes it lets pass.
var inForm = []string{
	"unknown key", "not supported yet", "is missing", "needs a mapping", "needs a list",
	"is not legal; use", "needs a whole number", "needs true or false", "must be at",
}

func TestSchema(t *testing.T) {
	s := compileSchema(t)
	refused := 0
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, path := range files {
			data := read(t, path)
			var doc any
			if yaml.Unmarshal(data, &doc) != nil {
				continue // no YAML at all
			}
			schemaErr := s.Validate(doc)
			_, err := spec.Parse(data, path)
			var errs config.Errors
			switch {
			case err == nil && schemaErr != nil:
				t.Errorf("%s is sound, but the schema says %v", path, schemaErr)
			case errors.As(err, &errs) && formal(errs) && schemaErr == nil:
				t.Errorf("%s passes the schema, though %v", path, err)
			case schemaErr != nil:
				refused++
			}
		}
	}
	if refused < 60 {
		t.Errorf("the schema refused only %d bad files", refused)
	}
}

func formal(errs config.Errors) bool {
	for _, e := range errs {
		for _, part := range inForm {
			if strings.Contains(e.Text, part) && !strings.Contains(e.Text, "names a gate") {
				return true
			}
		}
	}
	return false
}

// TestSchemaKnowsEveryKey fails when a key of the long form is missing.
func TestSchemaKnowsEveryKey(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(spec.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if p, ok := v["properties"].(map[string]any); ok {
				for k := range p {
					keys[k] = true
				}
			}
			for _, one := range v {
				walk(one)
			}
		case []any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(doc)
	var long any
	if err := yaml.Unmarshal(read(t, "testdata/good/long.yaml"), &long); err != nil {
		t.Fatal(err)
	}
	careful := long.(map[string]any)["configs"].(map[string]any)["careful"].(map[string]any)
	for k := range careful {
		if !keys[k] {
			t.Errorf("the schema does not know %q", k)
		}
	}
	if keys["notify"] || keys["cloudwatchAlarm"] {
		t.Error("the schema knows keys of later versions")
	}
}
