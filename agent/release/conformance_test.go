package release_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/hooks"
)

func files(pairs ...string) string {
	var b strings.Builder
	b.WriteString("files:\n")
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString("  - source: " + pairs[i] + "\n    destination: " + pairs[i+1] + "\n")
	}
	return b.String()
}

const overwrite = "file_exists_behavior: OVERWRITE\n"

const retain = "file_exists_behavior: RETAIN\n"

// TestInstallConformance covers sections B, C and D of the conformance list:
// what is on the host, a first and perhaps a second revision, and the result.
func TestInstallConformance(t *testing.T) {
	for _, c := range []struct {
		id          string
		there       tree
		spec        string
		revision    tree
		between     func(h *host)
		spec2       string
		second      tree
		want        tree
		fails       string // of the last deployment
		keepDirLink bool
	}{
		{id: "A01", want: tree{"d": ""}},
		{
			id: "B02 B08 B09", spec: files("d", "/dst"), revision: tree{
				"d/a": "1", "d/.hid": "2", "d/s/b c é": "3",
				"d/empty": "/",
			},
			want: tree{"dst/a": "1", "dst/.hid": "2", "dst/s/b c é": "3", "dst/empty": "/", "dst/d": ""},
		},
		{id: "B03", spec: files("d/", "/dst/"), revision: tree{"d/a": "1"}, want: tree{"dst/a": "1"}},
		{
			id: "B05 slash", spec: files("/", "/dst"), revision: tree{"x/a.sh": "1"},
			want: tree{"dst/x/a.sh": "1", "dst/appspec.yml": head + files("/", "/dst")},
		},
		{id: "B05 dot", spec: files(".", "/dst"), revision: tree{"x/a.sh": "1"}, want: tree{"dst/x/a.sh": "1"}},
		{id: "B06", spec: files("/a.txt", "/dst"), revision: tree{"a.txt": "1"}, want: tree{"dst/a.txt": "1"}},
		{
			id: "B09 B11 removed", spec: files("d", "/dst"), revision: tree{
				"d/b c é":          "1",
				"d/ends in space ": "1",
			}, spec2: "os: linux\n",
			want: tree{"dst/b c é": "", "dst/ends in space ": "", "dst": ""},
		},
		{id: "B12", spec: files("a", "/x/y/z"), revision: tree{"a": "1"}, want: tree{"x/y/z/a": "1", "x/y": "/"}},
		{
			id: "B12 removed", spec: files("a", "/x/y/z"), revision: tree{"a": "1"}, spec2: "os: linux\n",
			want: tree{"x": ""},
		},
		{
			id: "B14", spec: files("a", "/d", "a", "/d"), revision: tree{"a": "1"}, fails: "installed twice",
			want: tree{"d": ""},
		},
		{
			id: "B15", spec: files("a", "/d", "b", "/d/a"), revision: tree{"a": "1", "b/c": "2"},
			fails: "as a directory and as a file", want: tree{"d": ""},
		},
		{
			id: "B17", spec: files("a", "/d"), revision: tree{"a": "1"}, spec2: files("a", "/e", "gone",
				"/d"), second: tree{"a": "2"},
			fails: `source "gone" is not in the revision`, want: tree{"d/a": "1", "e": ""},
		},
		{
			id: "B18", spec: files("'*.txt'", "/d"), revision: tree{"a.txt": "1"}, fails: `source "*.txt" is not in`,
			want: tree{"d": ""},
		},
		{
			id: "B20", there: tree{"f": "file"}, spec: files("a", "/f/d"), revision: tree{"a": "1"},
			fails: "is not a directory", want: tree{"f": "file"},
		},
		{id: "B23", spec: files("a", "/d"), revision: tree{"a": "m:0750 1"}, want: tree{"d/a": "m:0750"}},
		{
			id: "B26", spec: files("s", "/d"), revision: tree{"s/x": "m:0700 /", "s/x/a": "1"},
			want: tree{"d/x": "m:0755"},
		},
		{id: "B27", spec: files("s", "/d"), revision: tree{"s/a": "1", "s/l": "->a"}, want: tree{"d/l": "->a"}},
		{
			id: "B29", spec: files("s", "/d"), revision: tree{"s/l": "->../t", "t/a": "1"},
			want: tree{"d/l": "/", "d/l/a": "1"},
		},
		{
			id: "B29 option", spec: files("s", "/d"), revision: tree{"s/l": "->../t", "t/a": "1"}, keepDirLink: true,
			want: tree{"d/l": "->../t"},
		},
		{id: "B29 loop", spec: files("s", "/d"), revision: tree{"s/l": "->."}, want: tree{"d/l": "->."}},
		{
			id: "B29 outside", spec: files("s", "/d"), revision: tree{
				"s/l": "->/etc", "s/f": "->/etc/passwd",
				"s/gone": "->/no/such",
			},
			want: tree{"d/l": "->/etc", "d/f": "->/etc/passwd", "d/gone": "->/no/such"},
		},
		{
			id: "B29 removed", spec: files("s", "/d"), revision: tree{"s/l": "->/etc"}, spec2: "os: linux\n",
			want: tree{"d": ""},
		},
		{id: "B30", spec: files("l", "/d"), revision: tree{"l": "->t", "t/a": "1"}, want: tree{"d/a": "1"}},
		{
			id: "B30 outside", spec: files("l", "/d"), revision: tree{"l": "->/etc"}, fails: "outside the revision",
			want: tree{"d": ""},
		},
		{
			id: "B30 below", spec: files("l/passwd", "/d"), revision: tree{"l": "->/etc"}, fails: "outside the revision",
			want: tree{"d": ""},
		},
		{
			id: "B30 file", spec: files("l", "/d"), revision: tree{"l": "->/etc/passwd"},
			want: tree{"d/l": "->/etc/passwd"},
		},
		{
			id: "C02", there: tree{"e/a": "foreign"}, spec: files("a",
				"/d"), revision: tree{"a": "1"}, spec2: files("a", "/e"), second: tree{"a": "2"},
			fails: "already exists at", want: tree{"d/a": "1", "e/a": "foreign"},
		},
		{
			id: "C03", there: tree{"d/a": "foreign"}, spec: overwrite + files("a", "/d"), revision: tree{"a": "1"},
			want: tree{"d/a": "1"},
		},
		{
			id: "C08", there: tree{"d/a": "/"}, spec: overwrite + files("a", "/d"), revision: tree{"a": "1"},
			fails: "a directory is at", want: tree{"d/a": "/", "d/a/a": ""},
		},
		{
			id: "C09", there: tree{"d/a": "->../out", "out": "kept"}, spec: overwrite + files("a", "/d"),
			revision: tree{"a": "1"}, want: tree{"d/a": "1", "out": "kept"},
		},
		{
			id: "C11", there: tree{"d/l": "file"}, spec: overwrite + files("s", "/d"),
			revision: tree{"s/l": "->a", "s/a": "1"}, want: tree{"d/l": "->a"},
		},
		{
			id: "C12", spec: files("s", "/d"), revision: tree{"s/a": "1", "s/b": "1"}, spec2: files("s", "/d"),
			second: tree{"s/a": "2"}, want: tree{"d/a": "2", "d/b": ""},
		},
		{
			id: "C14", spec: files("a", "/d"), revision: tree{"a": "1"},
			between: func(h *host) { h.must(os.Remove(filepath.Join(h.root, "d/a"))) }, spec2: files("a",
				"/d"), second: tree{"a": "2"}, want: tree{"d/a": "2"},
		},
		{
			id: "C15 C18", spec: files("s", "/d"), revision: tree{
				"s/x/a": "1",
				"s/y/b": "1",
			}, between: func(h *host) { tree{"d/x/user": "mine"}.build(h.T, h.root) },
			spec2: "os: linux\n", want: tree{"d/x/user": "mine", "d/x/a": "", "d/y": ""},
		},
		{id: "C17", spec: files("a", "/d"), revision: tree{"a": "1"}, spec2: "os: linux\n", want: tree{"d": ""}},
		{
			id: "C20", there: tree{"d/a": "foreign"}, spec: retain + files("a", "/d"), revision: tree{"a": "1"},
			spec2: "os: linux\n", want: tree{"d/a": "foreign"},
		},
		{id: "C21", spec: files("a", "/d"), revision: tree{"a": "1"}, between: func(h *host) {
			h.must(os.Remove(filepath.Join(h.root, "d/a")))
			tree{"d/a/mine": "x"}.build(h.T, h.root)
		}, spec2: files("a", "/d"), second: tree{"a": "2"}, fails: "/d/a", want: tree{"d/a/mine": "x"}},
		{
			id: "C23", spec: files("a", "/d"), revision: tree{"a": "1"}, spec2: files("a", "/d"), second: tree{"a": "1"},
			want: tree{"d/a": "1"},
		},
		{
			id: "file becomes directory", spec: files("s", "/d"), revision: tree{"s/x": "1"}, spec2: files("s", "/d"),
			second: tree{"s/x/y": "2"}, want: tree{"d/x/y": "2"},
		},
		{
			id: "directory becomes file", spec: files("s", "/d"), revision: tree{"s/x/y": "1"}, spec2: files("s", "/d"),
			second: tree{"s/x": "2"}, want: tree{"d/x": "2"},
		},
		{
			id: "D01", spec: files("s", "/d") + "permissions:\n  - {object: /d/a, mode: 600}\n",
			revision: tree{"s/a": "1", "s/b": "1"}, want: tree{"d/a": "m:0600", "d/b": "m:0644"},
		},
		{
			id: "D02", spec: files("s", "/d") + "permissions:\n  - {object: /d, mode: 700}\n", revision: tree{"s/a": "1", "s/x/y/b": "1"},
			want: tree{"d": "m:0755", "d/a": "m:0700", "d/x": "m:0700", "d/x/y": "m:0700", "d/x/y/b": "m:0700"},
		},
		{
			id: "D04", spec: files("s", "/d") + "permissions:\n  - {object: /d, pattern: '*.txt', type: [file], mode: 600}\n", revision: tree{"s/a.txt": "1", "s/.b.txt": "1", "s/x/c.txt": "1"},
			want: tree{"d/a.txt": "m:0600", "d/.b.txt": "m:0600", "d/x/c.txt": "m:0644"},
		},
		{
			id: "D05", spec: files("s", "/d") + "permissions:\n  - {object: /d, pattern: '*', type: [file], mode: 600}\n",
			revision: tree{"s/a": "1", "s/x/c": "1"}, want: tree{"d/a": "m:0600", "d/x/c": "m:0644"},
		},
		{
			id: "D05 only *", spec: files("s",
				"/d") + "permissions:\n  - {object: /d, pattern: 'a[1]?{x}*', type: [file], mode: 600}\n",
			revision: tree{"s/a[1]?{x}.txt": "1", "s/a1.{x}": "1"}, want: tree{
				"d/a[1]?{x}.txt": "m:0600",
				"d/a1.{x}":       "m:0644",
			},
		},
		{
			id: "D08 except *", spec: files("s",
				"/d") + "permissions:\n  - {object: /d, except: ['a*c*', '[b]'], type: [file], mode: 600}\n",
			revision: tree{"s/abcd": "1", "s/ac": "1", "s/ca": "1", "s/b": "1"},
			want:     tree{"d/abcd": "m:0644", "d/ac": "m:0644", "d/ca": "m:0600", "d/b": "m:0600"},
		},
		{
			id: "D07", spec: files("s", "/d") + "permissions:\n  - {object: /d, pattern: 'x/*.txt', mode: 600}\n",
			revision: tree{"s/x/c.txt": "1"}, want: tree{"d/x/c.txt": "m:0644"},
		},
		{id: "D08", spec: files("s", "/d") + "permissions:\n  - {object: /d, pattern: '**', except: [a.txt], type: [file], mode: 600}\n", revision: tree{"s/a.txt": "1", "s/x/a.txt": "1"}, want: tree{"d/a.txt": "m:0644", "d/x/a.txt": "m:0600"}},
		{id: "D10", spec: files("s", "/d") + "permissions:\n  - {object: /d, except: [x/c.txt], type: [file], mode: 600}\n", revision: tree{"s/x/c.txt": "1"}, want: tree{"d/x/c.txt": "m:0600"}},
		{
			id: "D11", spec: files("s", "/d") + "permissions:\n  - {object: /d, type: [directory], mode: 711}\n",
			revision: tree{"s/a": "1", "s/x/y/c": "1"}, want: tree{
				"d": "m:0755", "d/a": "m:0644", "d/x": "m:0711",
				"d/x/y": "m:0711",
			},
		},
		{
			id: "D13", spec: files("s", "/d") + "permissions:\n  - {object: /d/, type: [file], mode: 600}\n",
			revision: tree{"s/a": "1"}, want: tree{"d/a": "m:0600"},
		},
		{
			id: "D14", there: tree{"p/other": "1"},
			spec: files("s", "/p/d") + "permissions:\n  - {object: /p, mode: 700}\n", revision: tree{"s/a": "1"}, want: tree{"p/d": "m:0700", "p/d/a": "m:0700", "p/other": "m:0644"},
		},
		{
			id: "D16", spec: files("s", "/d") + "permissions:\n  - {object: /d/a, except: [x], mode: 600}\n",
			revision: tree{"s/a": "1"}, fails: "pattern and except are for directories", want: tree{"d": ""},
		},
		{
			id: "D17", spec: files("s", "/d") + "permissions:\n  - {object: /d/a, type: [directory], mode: 600}\n",
			revision: tree{"s/a": "1"}, want: tree{"d/a": "m:0644"},
		},
		{id: "D19", spec: files("s", "/d") + "permissions:\n  - {object: /d, type: [file], mode: 600}\n  - {object: /d/a, mode: 640}\n", revision: tree{"s/a": "1"}, fails: "/d/a has permissions from an earlier entry", want: tree{"d": ""}},
		{id: "D20", spec: files("s", "/d") + "permissions:\n  - {object: /d, pattern: '*.a', mode: 600}\n  - {object: /d, pattern: '*.b', mode: 640}\n", revision: tree{"s/x.a": "1", "s/x.b": "1"}, want: tree{"d/x.a": "m:0600", "d/x.b": "m:0640"}},
		{
			id: "D22", there: tree{"d/a": "foreign"},
			spec: retain + files("s",
				"/d") + "permissions:\n  - {object: /d, mode: 600}\n", revision: tree{"s/a": "1"}, want: tree{"d/a": "m:0644"},
		},
		{
			id: "D26", spec: files("s", "/d") + "permissions:\n  - {object: /d/a, mode: 4755}\n",
			revision: tree{"s/a": "1"}, want: tree{"d/a": "m:4755"},
		},
		{
			id: "unknown owner", spec: files("s", "/d") + "permissions:\n  - {object: /d, owner: nobody-at-all}\n",
			revision: tree{"s/a": "1"}, fails: `owner "nobody-at-all" is unknown`, want: tree{"d": ""},
		},
	} {
		t.Run(c.id, func(t *testing.T) {
			h := newHost(t, release.Options{KeepDirLinks: c.keepDirLink})
			c.there.build(t, h.root)
			err := h.deploy(c.spec, c.revision)
			if c.spec2 != "" {
				h.must(err)
				if c.between != nil {
					c.between(h)
				}
				err = h.deploy(strings.TrimPrefix(c.spec2, "os: linux\n"), c.second)
			}
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Fatalf("got %v, want %q", err, c.fails)
			}
			h.has(c.want)
		})
	}
}

// B24: the modification time survives.
func TestModificationTime(t *testing.T) {
	h := newHost(t, release.Options{})
	q := h.stage("v1", files("a", "/d"), tree{"a": "1"})
	want := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	h.must(os.Chtimes(filepath.Join(h.r.Dir("www", "v1"), "a"), want, want))
	h.must(h.r.Install(t.Context(), q))
	if st, err := os.Stat(filepath.Join(h.root, "d/a")); err != nil || !st.ModTime().Equal(want) {
		t.Errorf("got %v, %v", st.ModTime(), err)
	}
}

// C05, C06: the deployment's option, in any case; the appspec's own wins.
func TestFileExistsOption(t *testing.T) {
	h := newHost(t, release.Options{})
	tree{"d/a": "foreign"}.build(t, h.root)
	q := h.stage("v1", files("a", "/d"), tree{"a": "1"})
	if err := h.r.Check(q); err == nil {
		t.Error("DISALLOW is not the default")
	}
	var err error
	if q.FileExists, err = hooks.ParseFileExists("overwrite"); err != nil {
		t.Fatal(err)
	}
	h.must(h.r.Install(t.Context(), q))
	h.has(tree{"d/a": "1"})
	if _, err := hooks.ParseFileExists("FOO"); err == nil || !strings.Contains(err.Error(), "RETAIN") {
		t.Errorf("C06: %v", err)
	}
}

// D23, D25: owner and group, by name and number; only what is named changes.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to change owners")
	}
	h := newHost(t, release.Options{})
	h.must(h.deploy(files("s", "/d")+"permissions:\n  - {object: /d/a, owner: nobody}\n  - {object: /d/b, group: 65534}\n  - {object: /d/c, owner: 12345, group: 12346}\n",
		tree{"s/a": "1", "s/b": "1", "s/c": "1"}))
	for name, want := range map[string][2]uint32{"d/a": {65534, 0}, "d/b": {0, 65534}, "d/c": {12345, 12346}} {
		if got := owner(t, filepath.Join(h.root, name)); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// C30: the last line of a clean-up list is cut off.
func TestCutCleanUpList(t *testing.T) {
	h := newHost(t, release.Options{})
	h.must(h.deploy(files("s", "/d"), tree{"s/a": "1", "s/b": "1"}))
	list := filepath.Join(h.dir, "www", "installed")
	data, err := os.ReadFile(list)
	h.must(err)
	h.must(os.WriteFile(list, data[:len(data)-1], 0o600))
	h.must(h.deploy("", nil))
	h.has(tree{"d/a": "", "d/b": "1"})
}

// C26, C27, C29: retention.
func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name string
		keep int
		last string // the last good one
		want string
	}{
		{"C29 default", 0, "v6", "v6 v5 v4 v3 v2"},
		{"C26 one", 1, "v6", "v6"},
		{"C27 last good is old", 2, "v1", "v6 v1"},
	} {
		h := newHost(t, release.Options{Keep: c.keep})
		for range 6 {
			h.must(h.deploy("", tree{"a": "1"}))
			past := filepath.Join(h.dir, "www", "staged", "v"+string(rune('0'+h.n)))
			at := time.Unix(int64(1000*h.n), 0)
			h.must(os.Chtimes(past, at, at))
		}
		_, err := h.r.Prune("www", c.last)
		h.must(err)
		all, err := h.r.List("www")
		h.must(err)
		var got []string
		for _, r := range all {
			got = append(got, r.ID)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

func TestPruneByBytes(t *testing.T) {
	h := newHost(t, release.Options{KeepBytes: 3 << 10})
	for range 4 {
		h.must(h.deploy("", tree{"a": strings.Repeat("x", 1<<10)}))
	}
	deleted, err := h.r.Prune("www", "v3")
	if err != nil || len(deleted) != 2 || h.r.Has("www", "v1") || !h.r.Has("www", "v3") {
		t.Errorf("deleted %v, %v", deleted, err)
	}
}

// D35, D37: what chcon is asked for on a host with SELinux; one without ignores
// the section.
func TestContext(t *testing.T) {
	for want, c := range map[string]hooks.Context{
		"-t web_t":                   {Type: "web_t"},
		"-t web_t -u sys_u":          {Type: "web_t", User: "sys_u"},
		"-t web_t -u sys_u -l s0:c1": {Type: "web_t", User: "sys_u", Range: "s0:c1"},
	} {
		if got := strings.Join(release.ChconArgs(&c), " "); got != want {
			t.Errorf("%+v gives %q, want %q", c, got, want)
		}
	}
	spec, err := hooks.Parse([]byte(head+"permissions:\n  - {object: /d/a, context: {user: sys_u, type: web_t, range: s0}}\n"), "appspec.yml")
	if err != nil || *spec.Permissions[0].Context != (hooks.Context{User: "sys_u", Type: "web_t", Range: "s0"}) {
		t.Errorf("read %+v, %v", spec, err)
	}
}
