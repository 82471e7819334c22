package hooks_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/groundswell/groundswell/hooks"
)

const head = "version: 0.0\nos: linux\n"

// TestBadAppSpecs is the corpus of refused files: every answer names file,
// line, column and field.
func TestBadAppSpecs(t *testing.T) {
	for _, c := range []struct{ id, text, want string }{
		{"A02", "", "appspec.yml:1:1: the file is empty: version: 0.0 and os: linux are needed"},
		{"A02 comment", "# nothing\n", "appspec.yml:1:1: the file is empty: version: 0.0 and os: linux are needed"},
		{
			"A05", "version: \"0.0\"\nos: linux\n",
			`appspec.yml:1:10: version: invalid version "0.0": the only version is the number 0.0`,
		},
		{
			"version 1", "version: 1.0\nos: linux\n",
			`appspec.yml:1:10: version: invalid version "1.0": the only version is the number 0.0`,
		},
		{"no version", "os: linux\n", "appspec.yml:1:1: version: missing: add version: 0.0"},
		{
			"version list", "version: [0]\nos: linux\n",
			"appspec.yml:1:10: version: invalid version a list: the only version is the number 0.0",
		},
		{"A07", "version: 0.0\nos: Linux\n", `appspec.yml:2:5: os: unsupported operating system "Linux": only linux, in lower case, is supported`},
		{"A07 missing", "version: 0.0\n", "appspec.yml:1:1: os: missing: add os: linux"},
		{
			"A07 windows", "version: 0.0\nos: windows\n",
			`appspec.yml:2:5: os: unsupported operating system "windows": only linux, in lower case, is supported`,
		},
		{
			"A10", "version: 0.0\n\tos: linux\n",
			"appspec.yml:2:1: not valid YAML: found a tab character that violates indentation",
		},
		{"A10 open", head + "files: [a\n", "appspec.yml:4:1: not valid YAML: did not find expected ',' or ']'"},
		{"A10 control", "a: \x00", "appspec.yml:1:1: not valid YAML: control characters are not allowed"},
		{"A11", "hello\n", `appspec.yml:1:1: a map of keys and values is needed here, not the value "hello"`},
		{"A11 list", "- version: 0.0\n", "appspec.yml:1:1: a map of keys and values is needed here, not a list"},
		{"A16", head + "hooks:\n  - a\n", "appspec.yml:4:3: hooks: a map of keys and values is needed here, not a list"},
		{
			"A17", head + "hooks:\n  AfterInstall:\n    location: a.sh\n",
			"appspec.yml:5:5: hooks.AfterInstall: a list is needed here, not a map",
		},
		{
			"script text", head + "hooks:\n  AfterInstall:\n    - a.sh\n",
			`appspec.yml:5:7: hooks.AfterInstall[0]: a map of keys and values is needed here, not the value "a.sh"`,
		},
		{
			"no location", head + "hooks:\n  AfterInstall:\n    - timeout: 3\n",
			"appspec.yml:5:7: hooks.AfterInstall[0].location: missing",
		},
		{
			"timeout 0", head + "hooks:\n  AfterInstall:\n    - location: a\n      timeout: 0\n",
			`appspec.yml:6:16: hooks.AfterInstall[0].timeout: invalid timeout "0": it must be 1 second or more`,
		},
		{
			"timeout words", head + "hooks:\n  AfterInstall:\n    - location: a\n      timeout: soon\n",
			`appspec.yml:6:16: hooks.AfterInstall[0].timeout: invalid timeout "soon": a number of seconds is needed`,
		},
		{
			"sudo", head + "hooks:\n  AfterInstall:\n    - location: a\n      sudo: maybe\n",
			`appspec.yml:6:13: hooks.AfterInstall[0].sudo: invalid value "maybe": use true or false`,
		},
		{
			"A22", head + "files:\n  - destination: /d\n",
			`appspec.yml:4:5: files[0].source: destination "/d" has no source`,
		},
		{
			"A23", head + "files:\n  - source: s\n",
			`appspec.yml:4:5: files[0].destination: source "s" has no destination`,
		},
		{"both missing", head + "files:\n  - {}\n", "appspec.yml:4:5: files[0]: source and destination are missing"},
		{"files map", head + "files: {a: b}\n", "appspec.yml:3:8: files: a list is needed here, not a map"},
		{
			"source map", head + "files:\n  - source: {a: b}\n    destination: /x\n",
			"appspec.yml:4:13: files[0].source: a single value is needed here, not a map",
		},
		{
			"source out", head + "files:\n  - source: ../etc\n    destination: /x\n",
			`appspec.yml:4:13: files[0].source: "../etc" leads out of the revision`,
		},
		{
			"B21", head + "files:\n  - source: a\n    destination: x/y\n",
			`appspec.yml:5:18: files[0].destination: "x/y" is not a full path: it must begin with /`,
		},
		{
			"A26", head + "file_exists_behavior: overwrite\n",
			`appspec.yml:3:23: file_exists_behavior: unknown value "overwrite": use DISALLOW, OVERWRITE or RETAIN`,
		},
		{"A29", head + "permissions:\n  - mode: 600\n", "appspec.yml:4:5: permissions[0].object: missing"},
		{"A29 empty", head + "permissions:\n  - object: ''\n", "appspec.yml:4:5: permissions[0].object: missing"},
		{
			"object relative", head + "permissions:\n  - object: x\n",
			`appspec.yml:4:13: permissions[0].object: "x" is not a full path`,
		},
		{
			"A31", head + "permissions:\n  - object: /x\n    mode: 12345\n",
			`appspec.yml:5:11: permissions[0].mode: invalid mode "12345": mode length must be 1 to 4`,
		},
		{
			"mode digit", head + "permissions:\n  - object: /x\n    mode: 689\n",
			`appspec.yml:5:11: permissions[0].mode: invalid mode "689"`,
		},
		{
			"A32", head + "permissions:\n  - object: /x\n    type: [link]\n",
			`appspec.yml:5:12: permissions[0].type[0]: unsupported type "link": use file or directory`,
		},
		{
			"type text", head + "permissions:\n  - object: /x\n    type: file\n",
			`appspec.yml:5:11: permissions[0].type: a list is needed here, not the value "file"`,
		},
		{
			"D31", head + "permissions:\n  - object: /x\n    acls: ['u::rw']\n",
			`appspec.yml:5:12: permissions[0].acls[0]: invalid entry "u::rw": a base entry without a name is not for acls: use mode`,
		},
		{
			"D32", head + "permissions:\n  - object: /x\n    acls: ['u:x:rz']\n",
			`appspec.yml:5:12: permissions[0].acls[0]: invalid entry "u:x:rz": permissions are up to three`,
		},
		{
			"acl twice", head + "permissions:\n  - object: /x\n    acls: ['u:x:r', 'user:x:w']\n",
			`appspec.yml:5:21: permissions[0].acls[1]: invalid entry "user:x:w": the list has one for user:x already`,
		},
		{
			"acl kind", head + "permissions:\n  - object: /x\n    acls: ['q:x:r']\n",
			`appspec.yml:5:12: permissions[0].acls[0]: invalid entry "q:x:r": it must begin with`,
		},
		{
			"D34", head + "permissions:\n  - object: /x\n    context: {user: u}\n",
			"appspec.yml:5:14: permissions[0].context.type: missing",
		},
		{"alias", "a: *b\n", "appspec.yml:1:4: not valid YAML: unknown anchor 'b' referenced"},
	} {
		_, err := hooks.Parse([]byte(c.text), "appspec.yml")
		var invalid *hooks.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", c.id, err, c.want)
		}
	}
}

// TestBadCorpus is a larger corpus, with the whole answer to each file.
func TestBadCorpus(t *testing.T) {
	files := 0
	datadriven.RunTest(t, "testdata/bad_appspecs.txt", func(t *testing.T, d *datadriven.TestData) string {
		files++
		_, err := hooks.Parse([]byte(d.Input+"\n"), "appspec.yml")
		if err == nil {
			t.Errorf("%s: accepted:\n%s", d.Pos, d.Input)
			return ""
		}
		for line := range strings.Lines(err.Error()) {
			if !position.MatchString(line) {
				t.Errorf("%s: no place in %q", d.Pos, line)
			}
		}
		return err.Error() + "\n"
	})
	if files < 60 {
		t.Errorf("only %d files", files)
	}
	t.Logf("%d bad appspecs refused", files)
}

// position is how every answer begins.
var position = regexp.MustCompile(`^appspec\.yml:[1-9][0-9]*:[1-9][0-9]*: .`)

// Several mistakes are all told at once.
func TestAllProblemsAreTold(t *testing.T) {
	_, err := hooks.Parse([]byte("version: 1\nos: beos\nfiles: x\nhooks: y\n"), "conf/x.yml")
	if err == nil || strings.Count(err.Error(), "\n") != 3 ||
		!strings.HasPrefix(err.Error(), "conf/x.yml:1:10: version: ") {
		t.Fatalf("got %v", err)
	}
}

func TestGoodAppSpecs(t *testing.T) {
	for _, c := range []struct {
		id, text string
		check    func(*hooks.AppSpec) bool
	}{
		{"A01", head, func(s *hooks.AppSpec) bool { return len(s.Files)+len(s.Permissions)+len(s.Hooks) == 0 }},
		{"A04", "version: 0\nos: linux\n", nil},
		{"A08", head + "flavour: {any: [thing]}\n", nil},
		{"A13", head + "---\nversion: nine\n...\n\t:", nil},
		{
			"A14", head + "hooks:\n  AfterInstall:\n",
			func(s *hooks.AppSpec) bool { return len(s.Scripts(hooks.AfterInstall)) == 0 },
		},
		{
			"A19", head + "hooks:\n  AfterInstall:\n    - location: a\n      timeout: '30'\n",
			func(s *hooks.AppSpec) bool { return s.Scripts(hooks.AfterInstall)[0].Timeout == 30*time.Second },
		},
		{
			"A20", head + "hooks:\n  AfterInstall:\n    - location: a\n",
			func(s *hooks.AppSpec) bool { return s.Scripts(hooks.AfterInstall)[0].Timeout == time.Hour },
		},
		{"A25", head + "files:\n", func(s *hooks.AppSpec) bool { return len(s.Files) == 0 }},
		{
			"A28", head + "file_exists_behavior:\n",
			func(s *hooks.AppSpec) bool { return s.FileExists == hooks.FileExistsUnset },
		},
		{
			"A35", head + "hooks:\n  BeforeFoo:\n    - location: a\n",
			func(s *hooks.AppSpec) bool { return s.CheckEvents([]string{"BeforeFoo"}) == nil },
		},
		{"A34", head + "hooks:\n  BeforeFoo:\n    - location: a\n", func(s *hooks.AppSpec) bool {
			err := s.CheckEvents([]string{"AfterInstall"})
			return err != nil && strings.Contains(err.Error(), "BeforeFoo")
		}},
		{"A41", "\xef\xbb\xbf" + head, nil},
		{
			"D28", head + "permissions:\n  - object: /x/\n    mode: 0644\n",
			func(s *hooks.AppSpec) bool { return *s.Permissions[0].Mode == 0o644 && len(s.Warnings) == 1 },
		},
		{"D29", head + "permissions:\n  - {object: /x, mode: '0640'}\n  - {object: /y, mode: 640}\n  - {object: /z, mode: 7}\n", func(s *hooks.AppSpec) bool {
			return *s.Permissions[0].Mode == 0o640 && *s.Permissions[1].Mode == 0o640 && *s.Permissions[2].Mode == 7
		}},
		{"D13", head + "permissions:\n  - object: /x/\n", func(s *hooks.AppSpec) bool {
			return s.Permissions[0].Object == "/x" && s.Permissions[0].Pattern == "**"
		}},
		{
			"D25", head + "permissions:\n  - {object: /x, owner: 65534}\n",
			func(s *hooks.AppSpec) bool { return s.Permissions[0].Owner == "65534" },
		},
		{
			"D35 D37", head + "permissions:\n  - {object: /x, context: {user: u, type: t}}\n",
			func(s *hooks.AppSpec) bool { return *s.Permissions[0].Context == hooks.Context{User: "u", Type: "t"} },
		},
		{
			"acls", head + "permissions:\n  - {object: /x, acls: ['u:bob:rw', 'd:g:staff:5', 'm::rx']}\n",
			func(s *hooks.AppSpec) bool {
				a := s.Permissions[0].ACLs
				return a[0].Entry == "user:bob:rw" && a[1].Default && a[1].Entry == "default:group:staff:5" &&
					a[2].Entry == "mask::rx"
			},
		},
		{
			"anchors", head + "x: &s\n  - location: a.sh\nhooks:\n  AfterInstall: *s\n  ApplicationStart: *s\n",
			func(s *hooks.AppSpec) bool { return len(s.Scripts(hooks.ApplicationStart)) == 1 },
		},
		{"merge", head + "x: &s {location: a.sh, timeout: 9}\nhooks:\n  AfterInstall:\n    - <<: *s\n      timeout: 8\n", func(s *hooks.AppSpec) bool {
			sc := s.Scripts(hooks.AfterInstall)[0]
			return sc.Location == "a.sh" && sc.Timeout == 8*time.Second
		}},
		{"twice", head + "os: linux\n", func(s *hooks.AppSpec) bool { return len(s.Warnings) == 1 }},
	} {
		s, err := hooks.Parse([]byte(c.text), "appspec.yml")
		if err != nil || c.check != nil && !c.check(s) {
			t.Errorf("%s: got %+v, %v", c.id, s, err)
		}
	}
}

// A37, A38, A40 and G02, G03: where the file is looked for.
func TestFindAppSpec(t *testing.T) {
	dir := t.TempDir()
	if _, err := hooks.Load(dir, ""); err == nil || !strings.Contains(err.Error(), "appspec.yml") ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("A40: %v", err)
	}
	write := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(head), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("top/appspec.yaml")
	if got := hooks.Root(dir, ""); got != filepath.Join(dir, "top") {
		t.Errorf("G02: root %s", got)
	}
	write("beside.txt")
	if got := hooks.Root(dir, ""); got != dir {
		t.Errorf("G03: root %s", got)
	}
	write("conf/x.yml")
	if s, err := hooks.Load(dir, "conf/x.yml"); err != nil || s.Filename != "conf/x.yml" {
		t.Errorf("A38: %v", err)
	}
	if _, err := hooks.Load(dir, "../x.yml"); err == nil {
		t.Error("a name outside the revision was accepted")
	}
	write("appspec.yaml")
	if s, err := hooks.Load(dir, ""); err != nil || s.Filename != "appspec.yaml" {
		t.Errorf("A37: %v", err)
	}
}

func TestEvents(t *testing.T) {
	all := hooks.LifecycleEvents()
	if len(all) != 13 {
		t.Fatalf("%d events", len(all))
	}
	scriptable := 0
	for i, e := range all {
		if got, ok := hooks.ParseEvent(e.String()); !ok || got != e || int(e) != i+1 {
			t.Errorf("%v does not survive its name", e)
		}
		if e.Scriptable() {
			scriptable++
		}
	}
	if scriptable != 9 {
		t.Errorf("%d scriptable events", scriptable)
	}
	if _, ok := hooks.ParseEvent("none"); ok {
		t.Error("none is an event")
	}
}

// F12, F13, F15, F16.
func TestOrderEvents(t *testing.T) {
	for given, want := range map[string]string{
		"BeforeInstall,ApplicationStart":        "DownloadBundle,Install,BeforeInstall,ApplicationStart",
		"ApplicationStop,AfterInstall":          "ApplicationStop,DownloadBundle,Install,AfterInstall",
		"DownloadBundle,Install,Smoke,Validate": "DownloadBundle,Install,Smoke,Validate",
		"DownloadBundle,BeforeInstall,Install":  "DownloadBundle,BeforeInstall,Install",
		"ApplicationStart,DownloadBundle":       "",
		"AfterInstall,Install":                  "",
		"Install,DownloadBundle":                "",
		"Smoke,Smoke":                           "",
	} {
		got, err := hooks.OrderEvents(strings.Split(given, ","))
		if strings.Join(got, ",") != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v, %v", given, got, err)
		}
	}
}

// What CodeDeploy ignores is a warning that names the near key.
func TestUnknownKeys(t *testing.T) {
	s, err := hooks.Parse([]byte(head+"x-anchors: {}\nResources: []\nfiles:\n  - {source: a, destination: /b, file: c}\n"+
		"permissions:\n  - {object: /x, mod: 644}\nhooks:\n  AfterInstall:\n    - {location: a, runsas: x}\n"), "appspec.yml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range s.Warnings {
		got = append(got, w.Error())
	}
	want := []string{
		"appspec.yml:4:1: Resources: unknown key, which is ignored",
		"appspec.yml:6:34: files[0].file: unknown key, which is ignored",
		"appspec.yml:8:18: permissions[0].mod: unknown key, which is ignored (did you mean mode?)",
		"appspec.yml:11:21: hooks.AfterInstall[0].runsas: unknown key, which is ignored (did you mean runas?)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	err = (&hooks.AppSpec{Filename: "a", Hooks: map[string][]hooks.Script{
		"AplicationStop": nil,
		"Zzz":            nil,
	}}).CheckEvents(hooks.EventNames())
	if err == nil || !strings.Contains(err.Error(), "AplicationStop (did you mean ApplicationStop?), Zzz:") {
		t.Error(err)
	}
}

func TestContextRanges(t *testing.T) {
	for text, legal := range map[string]bool{
		"s0": true, "s0-s0:c0.c1023": true, "s0:c1,c3.c5": true, "s15": true, "s16": false, "s0:c1024": false, "s1-s0": false,
		"s0:c5.c5": false, "s0:c5.c3": false, "s0-s1-s2": false, "x": false, "s0:c1.c2.c3": false, "s0 ": false,
	} {
		spec := head + "permissions:\n  - {object: /x, context: {type: t, range: '" + text + "'}}\n"
		_, err := hooks.Parse([]byte(spec), "appspec.yml")
		if (err == nil) != legal || err != nil &&
			!strings.Contains(err.Error(), "permissions[0].context.range: invalid range") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLint(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("appspec.yml", head+"files:\n  - {source: gone, destination: /x}\nhooks:\n  AfterInstall:\n    - location: good.sh\n    - location: crlf.sh\n    - location: plain.sh\n    - location: missing.sh\n  BeforeFoo:\n    - location: good.sh\n")
	h.write("good.sh", "#!/bin/sh\n")
	h.write("crlf.sh", "#!/bin/sh\r\n")
	if err := os.Chmod(h.write("plain.sh", "echo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range hooks.Lint(h.root, "") {
		got = append(got, f.Severity.String()+" "+f.Error())
	}
	want := []string{
		`error appspec.yml:4:5: files[0].source: "gone" is not in the revision`,
		`error appspec.yml:8:7: hooks.AfterInstall[1].location: crlf.sh has CRLF`,
		`warning appspec.yml:9:7: hooks.AfterInstall[2].location: plain.sh has no run bit`,
		`warning appspec.yml:9:7: hooks.AfterInstall[2].location: plain.sh has no #! line`,
		`error appspec.yml:10:7: hooks.AfterInstall[3].location: script does not exist`,
		`warning appspec.yml:12:7: hooks.BeforeFoo[0]: no lifecycle event has this name`,
	}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got  %q\nwant %q", got[i], want[i])
		}
	}
}

// A folder is judged by whatever name it is given; what lies behind a link that
// leads out is no part of it.
func TestLintOfLinks(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("appspec.yml", head+"hooks:\n  AfterInstall:\n    - location: s/good.sh\n    - location: l/good.sh\n    - location: out.sh\n")
	h.write("s/good.sh", "#!/bin/sh\n")
	outside := filepath.Join(t.TempDir(), "x.sh")
	for from, to := range map[string]string{"l": "s", "out.sh": outside} {
		if err := os.Symlink(to, filepath.Join(h.root, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(h.root)
	for _, dir := range []string{".", h.root, "../" + filepath.Base(h.root)} {
		got := hooks.Lint(dir, "")
		if len(got) != 1 || !strings.Contains(got[0].Text, "outside the revision") {
			t.Errorf("%s: %v", dir, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "files:\n  - {source: a, destination: /b}\npermissions:\n  - {object: /x, mode: 0644, acls: ['u:x:rw'], type: [file]}\nhooks:\n  AfterInstall:\n    - {location: a.sh, timeout: 3, runas: x, sudo: yes}\n"))
	f.Add([]byte("a: &a [*a, {<<: *a}]\n"))
	f.Add([]byte("\xef\xbb\xbf---\n- ? {}\n  : !!binary x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := hooks.Parse(data, "appspec.yml")
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v and error %v", s, err)
		}
		if s == nil {
			return
		}
		for _, scripts := range s.Hooks {
			for _, sc := range scripts {
				if sc.Timeout <= 0 || sc.Location == "" {
					t.Fatalf("accepted %+v", sc)
				}
			}
		}
	})
}
