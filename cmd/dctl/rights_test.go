package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccessCommands: what is asked, what is shown, and the exit code.
func TestAccessCommands(t *testing.T) {
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	file := filepath.Join(t.TempDir(), "access.yaml")
	must(t, os.WriteFile(file, []byte("version: 1\n"), 0o600))
	for args, want := range map[string]struct {
		code     int
		out, err string
	}{
		"access test ann view www/prod":    {0, "yes, ann may\n  rules[1]: role viewer on www in groups prod\n", ""},
		"access test ann deploy www/prod":  {4, "no: no rule gives ann the verb deploy; ask root or bob\n", ""},
		"access explain deploy":            {0, "no: no rule gives me the verb deploy; ask root or bob\n", ""},
		"access explain view --person ann": {0, "yes, ann may\n", ""},
		"access explain deploy /prod":      {2, "", "write APP, or APP/GROUP"},
		"access explain deploy a/b/c":      {2, "", "write APP, or APP/GROUP"},
		"access explain deploy a/":         {2, "", "write APP, or APP/GROUP"},
		"access explain":                   {2, "", "an argument is missing"},
		"access test ann":                  {2, "", "an argument is missing"},
		"access test ann deploy www prod":  {2, "", "one argument too many"},
		"access show":                      {0, "version: 1\n", "index 7, applied by root at "},
		"whoami": {
			0,
			"ann, who counts as root where two people are asked for\nteams: oncall\n", "",
		},
		"access apply":                      {2, "", "FILE is missing"},
		"access apply " + file + ".not":     {2, "", "no such file"},
		"access apply --if-index 6 " + file: {0, "ann on www/prod: +deploy\nin force, index 7\n", ""},
		"access diff " + file:               {0, "ann on www/prod: +deploy\nnothing is changed yet", ""},
	} {
		got := cl.call(strings.Fields(args)...)
		if got.code != want.code || !strings.HasPrefix(got.out, want.out) || !strings.Contains(got.err, want.err) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	for _, r := range f.access {
		if r.DryRun == (r.IfIndex != nil) || r.IfIndex != nil && *r.IfIndex != 6 ||
			string(r.Source) != "version: 1\n" ||
			r.Filename != file {
			t.Errorf("asked for %v", r)
		}
	}
	if len(f.access) != 2 {
		t.Errorf("%d documents were sent", len(f.access))
	}
}
