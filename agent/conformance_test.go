package agent_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/artifacts/bundle"
)

// TestConformance runs the cases of testdata/conformance against the executor:
// real bundles, scripts, users and ACLs. ids.txt lists every case of CodeDeploy
// that there is to be, with the test that is not here, or why there can be
// none; a case without either fails.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the cases need root: users, owners, ACLs")
	}
	cases := conformanceCases(t)
	ran := map[string]bool{}
	dir := t.TempDir()
	var files []string
	for _, c := range cases {
		for _, id := range c.ids {
			ran[id] = true
		}
		file := filepath.Join(dir, strings.Join(c.ids, "+")+".txt")
		must(t, os.WriteFile(file, []byte(c.text), 0o644))
		if slices.Contains(files, file) {
			t.Fatalf("two cases are called %s", file)
		}
		files = append(files, file)
	}
	elsewhere, never := listedCases(t, ran)
	testscript.Run(t, testscript.Params{Files: files, Setup: conformanceHost, Cmds: conformanceCommands()})
	t.Logf("conformance: %d cases in %d scripts run here, %d by other tests, %d not applicable", len(ran), len(files),
		elsewhere, never)
}

type conformanceCase struct {
	ids  []string
	text string
}

// conformanceCases reads the files: a line "=== ID ID: what" begins a case.
func conformanceCases(t *testing.T) []conformanceCase {
	t.Helper()
	names, err := filepath.Glob("testdata/conformance/*.txtar")
	must(t, err)
	var cases []conformanceCase
	for _, name := range names {
		data, err := os.ReadFile(name)
		must(t, err)
		for part := range strings.SplitSeq("\n"+string(data), "\n=== ") {
			ids, text, ok := strings.Cut(part, ":")
			if ok && !strings.HasPrefix(strings.TrimSpace(part), "#") {
				cases = append(cases, conformanceCase{strings.Fields(ids), "# " + strings.TrimSpace(text) + "\n"})
			}
		}
	}
	return cases
}

// listedCases compares what is run with the list.
func listedCases(t *testing.T, ran map[string]bool) (elsewhere, never int) {
	t.Helper()
	data, err := os.ReadFile("testdata/conformance/ids.txt")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		switch {
		case len(f) == 1 && !ran[f[0]]:
			t.Errorf("case %s has no test", f[0])
		case len(f) == 1:
		case f[1] == "never" && len(f) > 4:
			never++
		case f[1] == "in" && len(f) >= 4:
			elsewhere++
			for _, test := range f[3:] {
				hasTest(t, f[0], f[2], test)
			}
		default:
			t.Errorf("ids.txt: %q is neither an id, nor `ID in PACKAGE TEST…`, nor `ID never WHY`",
				strings.TrimSpace(line))
		}
	}
	return elsewhere, never
}

func hasTest(t *testing.T, id, pkg, test string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
	must(t, err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		must(t, err)
		if strings.Contains(string(data), "func "+test+"(") {
			return
		}
	}
	t.Errorf("case %s: no test %s in %s", id, test, pkg)
}

// conformanceHead is what "..." as the first line of an appspec stands for.
const conformanceHead = "version: 0.0\nos: linux\n"

// conformanceHost makes the folder of a case one that other users may enter,
// and puts its path for $WORK in the files.
func conformanceHost(env *testscript.Env) error {
	for _, dir := range []string{filepath.Dir(env.WorkDir), env.WorkDir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return filepath.WalkDir(env.WorkDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(data), "$WORK", env.WorkDir)
		if rest, ok := strings.CutPrefix(text, "...\n"); ok {
			text = conformanceHead + rest
		}
		return os.WriteFile(path, []byte(text), 0o644)
	})
}

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

func conformanceCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"deploy": cmdDeploy, "pack": cmdPack, "mode": cmdMode, "owner": cmdOwner, "is": cmdIs, "link": cmdLink, "dir": cmdDir,
		"chown": cmdChown, "mtime": cmdMtime, "write": cmdWrite, "count": cmdCount, "tmpfs": cmdTmpfs, "took": cmdTook, "nothing": cmdNothing,
	}
}

// cmdDeploy is `deploy [key=value…] BUNDLE`: a local deployment of www to the
// group g under $WORK/root. The result is the standard output.
func cmdDeploy(ts *testscript.TestScript, neg bool, args []string) {
	o := agent.LocalOptions{App: "www", Group: "g", Root: ts.MkAbs("root"), StopFails: true}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok {
			o.Bundle = ts.MkAbs(arg)
			continue
		}
		switch key {
		case "type":
			o.Type = bundle.Type(value)
		case "events":
			o.Events = strings.Split(value, ",")
		case "exists":
			o.FileExists = value
		case "revert":
			o.Revert = value == "yes"
		case "stop":
			o.StopFails = value == "fail"
		case "max":
			o.MaxRevisions, _ = strconv.Atoi(value)
		case "appspec":
			o.AppSpec = value
		case "id":
			o.Deployment = value
		case "app":
			o.App = value
		case "group":
			o.Group = value
		case "root":
			o.Root = ts.MkAbs(value)
		default:
			ts.Fatalf("deploy: unknown %s", key)
		}
	}
	begin := time.Now()
	r, err := agent.DeployLocal(context.Background(), o)
	ts.Setenv("TOOK", fmt.Sprint(time.Since(begin).Milliseconds()))
	if err != nil {
		r.Result, r.Message = "refused", err.Error()
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	ts.Check(enc.Encode(r))
	_, err = ts.Stdout().Write(out.Bytes())
	ts.Check(err)
	if neg == (r.Result == agent.LocalSucceeded) {
		ts.Fatalf("deployment: %s", out.String())
	}
}

// cmdTook is `took MIN MAX`: bounds on the last deployment, in milliseconds.
func cmdTook(ts *testscript.TestScript, _ bool, args []string) {
	took, _ := strconv.Atoi(ts.Getenv("TOOK"))
	least, _ := strconv.Atoi(args[0])
	most, _ := strconv.Atoi(args[1])
	if took < least || took > most {
		ts.Fatalf("took %d ms, want %d to %d", took, least, most)
	}
}

// cmdPack is `pack KIND DIR FILE [name=NAME]…`: an archive of the folder, with
// the folder's modes, times and owners; zip-plain states no modes. Further
// entries get their names as they are.
func cmdPack(ts *testscript.TestScript, _ bool, args []string) {
	kind, dir, file := args[0], ts.MkAbs(args[1]), ts.MkAbs(args[2])
	f, err := os.Create(file)
	ts.Check(err)
	defer f.Close()
	switch kind {
	case "tar":
		ts.Check(packTar(f, dir, args[3:]))
	case "tgz":
		z := gzip.NewWriter(f)
		ts.Check(packTar(z, dir, args[3:]))
		ts.Check(z.Close())
	case "zip", "zip-plain":
		ts.Check(packZip(f, dir, kind == "zip", args[3:]))
	default:
		ts.Fatalf("pack: unknown kind %s", kind)
	}
}

// packed calls visit for each path of the folder, in order.
func packed(dir string, visit func(rel, path string, info fs.FileInfo, link string) error) error {
	return filepath.Walk(dir, func(path string, info fs.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		return visit(rel, path, info, link)
	})
}

func packTar(w io.Writer, dir string, extra []string) error {
	t := tar.NewWriter(w)
	err := packed(dir, func(rel, path string, info fs.FileInfo, link string) error {
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = rel
		if info.IsDir() {
			h.Name += "/"
		}
		if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		return pour(t, path)
	})
	for _, name := range extra {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 4, Typeflag: tar.TypeReg})
		}
		if err == nil {
			_, err = t.Write([]byte("evil"))
		}
	}
	if err != nil {
		return err
	}
	return t.Close()
}

func packZip(w io.Writer, dir string, modes bool, extra []string) error {
	z := zip.NewWriter(w)
	err := packed(dir, func(rel, path string, info fs.FileInfo, link string) error {
		h := &zip.FileHeader{Name: rel, Method: zip.Deflate}
		if info.IsDir() {
			h.Name += "/"
		}
		if modes {
			h.SetMode(info.Mode())
		}
		out, err := z.CreateHeader(h)
		switch {
		case err != nil || info.IsDir():
			return err
		case link != "":
			_, err = io.WriteString(out, link)
			return err
		}
		return pour(out, path)
	})
	for _, name := range extra {
		if err == nil {
			var out io.Writer
			if out, err = z.Create(name); err == nil {
				_, err = io.WriteString(out, "evil")
			}
		}
	}
	if err != nil {
		return err
	}
	return z.Close()
}

func pour(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// cmdMode is `mode PATH OCTAL`.
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	st, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	bits := uint32(st.Mode().Perm())
	if st.Mode()&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if st.Mode()&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if got := fmt.Sprintf("%04o", bits); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// cmdOwner is `owner PATH UID GID`.
func cmdOwner(ts *testscript.TestScript, _ bool, args []string) {
	st, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	sys := st.Sys().(*syscall.Stat_t)
	if got := fmt.Sprintf("%d %d", sys.Uid, sys.Gid); got != args[1]+" "+args[2] {
		ts.Fatalf("%s belongs to %s, want %s %s", args[0], got, args[1], args[2])
	}
}

func cmdChown(ts *testscript.TestScript, _ bool, args []string) {
	uid, _ := strconv.Atoi(args[1])
	gid, _ := strconv.Atoi(args[2])
	ts.Check(os.Lchown(ts.MkAbs(args[0]), uid, gid))
}

// cmdMtime is `mtime PATH DATE` or, with a leading !, sets it.
func cmdMtime(ts *testscript.TestScript, neg bool, args []string) {
	at, err := time.Parse(time.DateOnly, args[1])
	ts.Check(err)
	if neg {
		ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
		return
	}
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if !st.ModTime().Equal(at) {
		ts.Fatalf("%s is of %v, want %v", args[0], st.ModTime(), at)
	}
}

// cmdIs is `is PATH [TEXT]`: a regular file with exactly that text, its last
// newline aside.
func cmdIs(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	st, err := os.Lstat(path)
	ts.Check(err)
	if !st.Mode().IsRegular() {
		ts.Fatalf("%s is a %s", args[0], st.Mode())
	}
	data, err := os.ReadFile(path)
	ts.Check(err)
	want := strings.Join(args[1:], " ")
	if got := strings.TrimSuffix(string(data), "\n"); (got == want) == neg {
		ts.Fatalf("%s holds %q, want %q (or not: %v)", args[0], got, want, neg)
	}
}

// cmdWrite is `write PATH TEXT`, parents made; \x escapes are read.
func cmdWrite(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	text, err := strconv.Unquote(`"` + strings.Join(args[1:], " ") + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(path, []byte(text), 0o644))
}

func cmdLink(ts *testscript.TestScript, _ bool, args []string) {
	got, err := os.Readlink(ts.MkAbs(args[0]))
	ts.Check(err)
	if got != args[1] {
		ts.Fatalf("%s leads to %s, want %s", args[0], got, args[1])
	}
}

func cmdDir(ts *testscript.TestScript, _ bool, args []string) {
	for _, arg := range args {
		st, err := os.Lstat(ts.MkAbs(arg))
		ts.Check(err)
		if !st.IsDir() {
			ts.Fatalf("%s is a %s", arg, st.Mode())
		}
	}
}

// cmdTmpfs is `tmpfs DIR SIZE`: a small disk.
func cmdTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// cmdNothing fails if anything is at the paths, links not followed.
func cmdNothing(ts *testscript.TestScript, _ bool, args []string) {
	for _, arg := range args {
		if _, err := os.Lstat(ts.MkAbs(arg)); err == nil {
			ts.Fatalf("%s is there", arg)
		}
	}
}

// cmdCount is `count N GLOB`.
func cmdCount(ts *testscript.TestScript, _ bool, args []string) {
	got, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if fmt.Sprint(len(got)) != args[0] {
		ts.Fatalf("%d at %s, want %s: %v", len(got), args[1], args[0], got)
	}
}
