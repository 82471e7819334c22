package sweep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/hooks"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	if text := os.Getenv("SWEEP_DEPLOY"); text != "" {
		deploy(text)
	}
	os.Exit(m.Run())
}

// deploy makes the test binary a local deployment that is there to be ended.
func deploy(text string) {
	var o agent.LocalOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	r, err := agent.DeployLocal(context.Background(), o)
	if err != nil {
		r.Message = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	os.Exit(0)
}

// TestSweep ends a deployment at every operation, in every way, and lets the
// next deployment take over. SWEEP=all tries every operation, as `make crash`
// does; else a sample of them. What must hold:
//
//	S1  no two hooks ran at a time
//	S2  no hook of a deployment started twice
//	S7  what is current is, byte for byte, what a bundle holds
//	S8  current leads to a complete revision, or to nothing before the first
//	C   each installed file is that of one revision or the other, whole
//	U   a deployment that came to its end on a full disk leaves exactly what
//	    was there before it, or exactly what it was to bring
//	R   the next deployment succeeds and leaves what a deployment leaves that
//	    nothing has disturbed: no temporary file, plan, or half folder
func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("tracing, mounts and owners need root")
	}
	var all tally
	for _, s := range scenarios {
		w := newWorld(t, s)
		names := w.count(t)
		for _, way := range ways {
			points := way.points(names)
			apply := len(points)
			if os.Getenv("SWEEP") != "all" {
				points = thin(points, way.sample)
			}
			got := w.sweep(t, way, points)
			t.Logf("sweep_%s_%s: operations %d, of them %d to try, tried %d, reached %d, violations %d",
				s.name, way.name, len(names), apply, got.points, got.reached, got.violations)
			all.add(got)
		}
	}
	t.Logf("sweep: points %d, reached %d, violations %d", all.points, all.reached, all.violations)
	if all.reached < all.points*9/10 {
		t.Errorf("only %d of %d points were reached", all.reached, all.points)
	}
}

type tally struct{ points, reached, violations int }

func (a *tally) add(b tally) {
	a.points, a.reached, a.violations = a.points+b.points, a.reached+b.reached, a.violations+b.violations
}

// way is how a deployment is ended.
type way struct {
	name   string
	errno  syscall.Errno
	sticky bool
	power  bool
	full   bool // the disk is really full from then on, until the end
	sample int  // points when not all are tried
}

var ways = []way{
	{name: "kill", sample: 12},
	{name: "enospc", errno: syscall.ENOSPC, sticky: true, sample: 6},
	{name: "eio", errno: syscall.EIO, sample: 6},
	{name: "power", power: true, sample: 4},
	{name: "full", full: true, sample: 10},
}

// points are the operations to try: all, but a full disk only fails those that
// take room.
func (w way) points(names []string) []int {
	var all []int
	for i, name := range names {
		op, _, _ := strings.Cut(name, " ")
		if w.errno != syscall.ENOSPC || slices.Contains([]string{
			"open", "write", "pwrite", "mkdir", "link", "symlink",
			"rename", "setxattr", "syncfs", "fsync",
		}, op) {
			all = append(all, i+1)
		}
	}
	return all
}

// thin takes about n of the points.
func thin(points []int, n int) []int {
	var some []int
	step := len(points)/n + 1
	for i := step / 2; i < len(points); i += step {
		some = append(some, points[i])
	}
	return some
}

// scenario is a deployment over one that runs.
type scenario struct {
	name   string
	bundle string // v2 or broken
	revert bool
}

var scenarios = []scenario{
	{name: "upgrade", bundle: "v2"},
	{name: "revert", bundle: "broken", revert: true},
}

// bundles hold everything that an install can do: files that stay, change,
// come and go, change their kind, links, modes, folders.
var bundles = map[string]map[string]string{
	"v1": {
		"t/same": "same", "t/changed": "one", "t/gone": "one", "t/s/deep": "one", "t/file2dir": "one", "t/dir2file/x": "one",
		"t/link": "->same",
	},
	"v2": {
		"t/same": "same", "t/changed": "two", "t/new": "two", "t/s/deep": "two", "t/file2dir/x": "two", "t/dir2file": "two",
		"t/link": "->changed", "t/foreign": "two",
	},
}

const specHead = "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n  - {source: t, destination: DST}\npermissions:\n  - {object: DST/changed, mode: 640, owner: nobody}\nhooks:\n"

// hook tells when it begins and ends, on a disk that no fault touches.
const hookScript = "#!/bin/sh\nline=\"$DEPLOYMENT_ID $LIFECYCLE_EVENT $GROUNDSWELL_REVISION $DEPLOY_ACTION\"\necho \"begin $line\" >>$TRACE\nEXTRA\necho \"end $line\" >>$TRACE\n"

// world is where a scenario happens: a template of the state before, from
// which each point starts.
type world struct {
	scenario
	dir      string
	template string            // folder with fs/ (state and destination) after v1
	image    string            // the same as a disk image, "" without loop devices
	want     map[string]string // snapshot after an undisturbed deployment, by its bundles in order
}

func newWorld(t *testing.T, s scenario) *world {
	t.Helper()
	w := &world{scenario: s, dir: t.TempDir(), want: map[string]string{}}
	// In memory: what is killed does not miss a disk, and power is lost on a
	// disk of its own.
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=512m,mode=755"); err != nil {
		t.Logf("on the disk of %s, which is slower: %v", w.dir, err)
		must(t, os.Chmod(w.dir, 0o755))
	} else {
		t.Cleanup(func() { must(t, syscall.Unmount(w.dir, syscall.MNT_DETACH)) })
	}
	w.template = filepath.Join(w.dir, "template")
	p := w.point(t, "template")
	w.setUp(t, p)
	for _, names := range []string{"v1", "v2", "v2 v1"} {
		q := w.point(t, "want-"+strings.ReplaceAll(names, " ", "-"))
		copyTree(t, p.fs, q.fs)
		w.rehome(t, q)
		for name := range strings.FieldsSeq(names) {
			must(t, q.finish(name))
		}
		w.want[names] = q.snapshot(t)
	}
	w.makeImage(t, p)
	return w
}

// point is one try: folders of its own, so that tries run beside each other.
type point struct {
	scenario
	dir   string
	fs    string // state and destination: what faults reach
	trace string
}

func (w *world) point(t *testing.T, name string) *point {
	t.Helper()
	p := &point{scenario: w.scenario, dir: filepath.Join(w.dir, name)}
	p.fs, p.trace = filepath.Join(p.dir, "fs"), filepath.Join(p.dir, "trace")
	must(t, os.MkdirAll(p.fs, 0o755))
	return p
}

// setUp deploys v1 where a file of someone else is, too.
func (w *world) setUp(t *testing.T, p *point) {
	t.Helper()
	must(t, os.MkdirAll(p.dst(), 0o755))
	must(t, os.WriteFile(filepath.Join(p.dst(), "foreign"), []byte("foreign"), 0o604))
	must(t, os.WriteFile(filepath.Join(p.dst(), "mine"), []byte("mine"), 0o644))
	p.writeBundles(t)
	must(t, p.finish("v1"))
}

// rehome makes a copied state one of its own: destinations are absolute paths,
// which the state knows from its clean-up list and from appspecs.
func (w *world) rehome(t *testing.T, p *point) {
	t.Helper()
	p.writeBundles(t)
	app := filepath.Join(p.fs, "root", "releases", "www.g")
	files, err := filepath.Glob(filepath.Join(app, "releases", "*", "appspec.yml"))
	must(t, err)
	for _, file := range append(files, filepath.Join(app, "installed")) {
		data, err := os.ReadFile(file)
		must(t, err)
		old := filepath.Join(w.template, "fs")
		must(t, os.WriteFile(file, bytes.ReplaceAll(data, []byte(old), []byte(p.fs)), 0o600))
	}
}

func (p *point) dst() string { return filepath.Join(p.fs, "dst") }

// writeBundles writes v1, v2 and broken, which is v2 with a failing hook. They
// lie where no fault reaches them.
func (p *point) writeBundles(t *testing.T) {
	t.Helper()
	for _, name := range []string{"v1", "v2", "broken"} {
		files := bundles[strings.Replace(name, "broken", "v2", 1)]
		dir := filepath.Join(p.dir, name)
		for file, text := range files {
			path := filepath.Join(dir, file)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			if to, link := strings.CutPrefix(text, "->"); link {
				must(t, os.Symlink(to, path))
				continue
			}
			must(t, os.WriteFile(path, []byte(text), 0o644))
		}
		spec, extra := specHead, ""
		for _, event := range []string{"ApplicationStop", "AfterInstall"} {
			spec += "  " + event + ":\n    - location: h.sh\n"
		}
		if name == "broken" {
			extra = "[ $LIFECYCLE_EVENT != AfterInstall ] || exit 1"
		}
		spec = strings.ReplaceAll(spec, "DST", p.dst())
		must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte(spec), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "h.sh"), []byte(strings.Replace(hookScript, "EXTRA", extra, 1)), 0o755))
	}
}

// command is a deployment as a process.
func (p *point) command(bundle, id string, revert bool) (*exec.Cmd, error) {
	o := agent.LocalOptions{
		Bundle: filepath.Join(p.dir, bundle), App: "www", Group: "g", Root: filepath.Join(p.fs, "root"), Deployment: id,
		Revert: revert, StopFails: true, MaxRevisions: 1, Env: map[string]string{"TRACE": p.trace},
	}
	if id == "after" { // it is there to take over; its own hooks were tried as the other's
		o.Events = []string{"ApplicationStop", "Install"}
	}
	text, err := json.Marshal(o)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SWEEP_DEPLOY="+string(text), "GOMAXPROCS=1")
	if err == nil {
		cmd.Stdout, err = os.Create(p.result()) // a file: nobody has to copy from a pipe
	}
	return cmd, err
}

func (p *point) result() string { return filepath.Join(p.dir, "result") }

// finish deploys undisturbed and demands success.
func (p *point) finish(bundle string) error {
	cmd, err := p.command(bundle, "after", false)
	if err != nil {
		return err
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	err = cmd.Run()
	if f, ok := cmd.Stdout.(*os.File); ok {
		_ = f.Close()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, complaints.String())
	}
	out, err := os.ReadFile(p.result())
	if err != nil {
		return err
	}
	var r agent.LocalResult
	if err := json.Unmarshal(out, &r); err != nil || r.Result != agent.LocalSucceeded {
		return fmt.Errorf("the next deployment: %s (%w)", out, err)
	}
	return nil
}

// count runs the scenario undisturbed and says which operations it has.
func (w *world) count(t *testing.T) []string {
	t.Helper()
	p := w.fresh(t, "count")
	cmd, err := p.command(w.bundle, "swept", w.revert)
	must(t, err)
	got, err := run(cmd, fault{})
	if errors.Is(err, syscall.EPERM) {
		t.Skip("processes cannot be traced here")
	}
	must(t, err)
	out, err := os.ReadFile(p.result())
	must(t, err)
	if got.killed || !strings.Contains(string(out), `"deployment_id":"swept"`) {
		t.Fatalf("undisturbed: killed %v after %d operations: %s", got.killed, got.ops, out)
	}
	if msg := w.check(p); msg != "" {
		t.Fatalf("undisturbed: %s", msg)
	}
	return got.names
}

func (w *world) fresh(t *testing.T, name string) *point {
	t.Helper()
	p := w.point(t, name)
	copyTree(t, filepath.Join(w.template, "fs"), p.fs)
	w.rehome(t, p)
	return p
}

// workers is how many points are tried at a time.
const workers = 3

// sweep tries the operations.
func (w *world) sweep(t *testing.T, how way, operations []int) tally {
	if (how.power || how.full) && w.image == "" {
		t.Logf("sweep_%s_%s: not tried, no loop devices or ext4 here", w.name, how.name)
		return tally{}
	}
	var mu sync.Mutex
	var got tally
	points := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for n := range points {
				reached, msg := w.try(t, how, n)
				mu.Lock()
				got.points++
				if reached != "" {
					got.reached++
				}
				if msg != "" {
					got.violations++
					t.Errorf("%s at operation %d (%s) of %s: %s", how.name, n, reached, w.name, msg)
				}
				mu.Unlock()
			}
		})
	}
	for _, n := range operations {
		points <- n
	}
	close(points)
	group.Wait()
	return got
}

// try ends one deployment at operation n and lets the next take over: that of
// the new revision, or, every second time, of the old one.
func (w *world) try(t *testing.T, how way, n int) (reached, msg string) {
	name := how.name + "-" + strconv.Itoa(n)
	if how.power || how.full {
		return w.tryDisk(t, name, n, how)
	}
	p := w.fresh(t, name)
	defer func() { _ = os.RemoveAll(p.dir) }()
	cmd, err := p.command(w.bundle, "swept", w.revert)
	if err != nil {
		return "", err.Error()
	}
	got, err := run(cmd, fault{at: n, errno: how.errno, sticky: how.sticky})
	if err != nil {
		return got.hit, err.Error()
	}
	return got.hit, w.takeOver(t, p, n)
}

// takeOver checks what the end left, and the deployment after it.
func (w *world) takeOver(t *testing.T, p *point, n int) string {
	if msg := w.check(p); msg != "" {
		return "as it was left: " + msg
	}
	next := []string{"v1", "v2"}[n%2]
	if err := p.finish(next); err != nil {
		return err.Error()
	}
	if msg := p.checkCurrent(); msg != "" {
		return "after the next deployment: " + msg
	}
	if msg := p.checkHooks(); msg != "" {
		return "after the next deployment: " + msg
	}
	// A deployment that had come to its end made foreign its own, and the next
	// one removes it.
	if got := p.snapshot(t); got != w.want[next] && got != w.want["v2 "+next] {
		return "after the next deployment:\n" + got + "want\n" + w.want[next]
	}
	return ""
}

// tryDisk is try on a disk of its own, which loses power or has no room left.
func (w *world) tryDisk(t *testing.T, name string, n int, how way) (reached, msg string) {
	p := w.point(t, name)
	defer func() { _ = os.RemoveAll(p.dir) }()
	image := filepath.Join(p.dir, "disk")
	if err := clone(w.image, image); err != nil {
		return "", err.Error()
	}
	// The path of the mount is that of the template: its state names it.
	mount := func() error { return command("mount", "-o", "loop", image, p.fs) }
	umount := func() (err error) {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = command("umount", p.fs); err == nil { // hooks go on without the agent that was killed
				break
			}
		}
		return err
	}
	if err := mount(); err != nil {
		return "", err.Error()
	}
	w.rehome(t, p)
	if err := command("sync", "-f", p.fs); err != nil {
		return "", err.Error()
	}
	cmd, err := p.command(w.bundle, "swept", w.revert)
	if err != nil {
		return "", err.Error()
	}
	if how.full {
		defer func() { _ = umount() }()
		return w.runFull(t, p, cmd, n)
	}
	got, err := run(cmd, fault{at: n, before: func() { msg = shutdown(p.fs) }})
	if err := umount(); err != nil || msg != "" {
		return got.hit, fmt.Sprintf("lose power: %s %v", msg, err)
	}
	if err != nil {
		return got.hit, err.Error()
	}
	// Whoever made a mount namespace meanwhile, as any test of networks does, still
	// has the old mount; of one image Linux would hand out that again, shut down.
	cut := image
	image = filepath.Join(p.dir, "disk-after")
	if err := errors.Join(clone(cut, image), mount()); err != nil {
		return got.hit, err.Error()
	}
	defer func() { _ = umount() }()
	return got.hit, w.takeOver(t, p, n)
}

// endless is when a deployment on a full disk counts as one that never ends.
const endless = time.Minute

// runFull runs a deployment whose disk is full from operation n on, looks at
// what it leaves, makes room and lets the next one take over.
func (w *world) runFull(t *testing.T, p *point, cmd *exec.Cmd, n int) (reached, msg string) {
	filler := filepath.Join(p.fs, "filler")
	var watchdog *time.Timer
	got, err := run(cmd, fault{at: n, live: true, before: func() {
		msg = fill(filler)
		watchdog = time.AfterFunc(endless, func() { _ = cmd.Process.Kill() })
	}})
	if watchdog == nil && err == nil {
		return "", "" // the number of operations varies by a few
	}
	if err != nil || msg != "" {
		return got.hit, fmt.Sprintf("run on a full disk: %s %v", msg, err)
	}
	if !watchdog.Stop() {
		return got.hit, "does not end"
	}
	if msg := w.check(p); msg != "" {
		return got.hit, "as it was left: " + msg
	}
	var r agent.LocalResult
	out, err := os.ReadFile(p.result())
	if err == nil && json.Unmarshal(out, &r) == nil && r.Event != "" || r.Result == agent.LocalSucceeded {
		if now := p.snapshot(t); now != w.want["v1"] && now != w.want["v2"] {
			return got.hit, "U: as it was left after " + string(out) + now + "want\n" + w.want["v1"]
		}
	}
	if err := os.Remove(filler); err != nil {
		return got.hit, err.Error()
	}
	return got.hit, w.takeOver(t, p, n)
}

// fill takes all the room of a disk, also what is set aside for root.
func fill(file string) string {
	f, err := os.Create(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err.Error()
		}
	}
	if err := f.Sync(); err != nil {
		return err.Error()
	}
	return ""
}

// shutdown cuts the power of an ext4: what is not on disk by now never will be.
func shutdown(dir string) string {
	const ext4Shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(dir)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		return fmt.Sprintf("shut down ext4: %v", err)
	}
	return ""
}

// makeImage puts the template on an ext4.
func (w *world) makeImage(t *testing.T, p *point) {
	t.Helper()
	image, at := filepath.Join(w.dir, "image"), filepath.Join(w.dir, "mnt")
	must(t, os.Mkdir(at, 0o755))
	f, err := os.Create(image)
	must(t, err)
	must(t, errors.Join(f.Truncate(10<<20), f.Close()))
	if command("mkfs.ext4", "-q", "-b", "1024", "-J", "size=1", image) != nil ||
		command("mount", "-o", "loop", image, at) != nil {
		return
	}
	must(t, command("cp", "-a", p.fs+"/.", at))
	must(t, command("umount", at))
	w.image = image
}

func clone(from, to string) error { return command("cp", "--sparse=always", from, to) }

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	must(t, command("cp", "-a", from+"/.", to))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot is the destination and what of the state must be tidy.
func (p *point) snapshot(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(p.dst(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(p.fs, path)
		what := ""
		switch {
		case info.Mode().IsRegular():
			data, _ := os.ReadFile(path)
			what = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			what, _ = os.Readlink(path)
		}
		fmt.Fprintf(&b, "%s %s %d %q\n", rel, info.Mode(), info.Sys().(*syscall.Stat_t).Uid, what)
		return nil
	})
	must(t, err)
	app := filepath.Join(p.fs, "root", "releases", "www.g")
	list, _ := os.ReadFile(filepath.Join(app, "installed"))
	b.WriteString(strings.ReplaceAll(string(list), p.fs, ""))
	for _, pattern := range []string{"plan", "releases/.*"} {
		left, _ := filepath.Glob(filepath.Join(app, pattern))
		for _, l := range left {
			fmt.Fprintf(&b, "left over: %s\n", strings.TrimPrefix(l, app))
		}
	}
	return b.String()
}

// check is what must hold at any moment, after a restart or before it.
func (w *world) check(p *point) string {
	for _, msg := range []string{p.checkCurrent(), p.checkFiles(), p.checkHooks()} {
		if msg != "" {
			return msg
		}
	}
	return ""
}

// checkCurrent: S7 and S8.
func (p *point) checkCurrent() string {
	current := filepath.Join(p.fs, "root", "releases", "www.g", "current")
	if _, err := os.Lstat(current); errors.Is(err, fs.ErrNotExist) {
		return "S8: current is gone"
	}
	got, err := listing(current + "/")
	if err != nil {
		return "S8: " + err.Error()
	}
	for _, name := range []string{"v1", "v2", "broken"} {
		if want, err := listing(filepath.Join(p.dir, name)); err == nil && got == want {
			return ""
		}
	}
	return "S8: current is no complete revision:\n" + got
}

// listing is every path of a tree with its type and content.
func listing(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		what := ""
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = string(data)
		case d.Type()&fs.ModeSymlink != 0:
			what, _ = os.Readlink(path)
		}
		fmt.Fprintf(&b, "%s %s %q\n", rel, d.Type(), what)
		return nil
	})
	return b.String(), err
}

// checkFiles: what both revisions have is there at any moment, whole, and
// files of others stay.
func (p *point) checkFiles() string {
	legal := map[string][]string{
		"same": {"same"}, "changed": {"one", "two"}, "s/deep": {"one", "two"}, "foreign": {
			"foreign",
			"two",
		}, "mine": {"mine"}, "link": {"same", "one", "two"},
	}
	for name, texts := range legal {
		data, err := os.ReadFile(filepath.Join(p.dst(), name))
		if err != nil || !slices.Contains(texts, string(data)) {
			return fmt.Sprintf("C: %s holds %q, %v", name, data, err)
		}
	}
	return ""
}

// checkHooks: S1 and S2, from what the hooks wrote.
func (p *point) checkHooks() string {
	data, err := os.ReadFile(p.trace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	begun := map[string]int{}
	running := ""
	for line := range strings.Lines(string(data)) {
		what, hook, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "end" {
			if hook != running {
				return fmt.Sprintf("S1: %s ended while %q ran:\n%s", hook, running, data)
			}
			running = ""
			continue
		}
		running = hook // one that was killed has no end
		begun[hook]++
		most := 1
		if strings.HasSuffix(hook, " rollback") {
			most = 3 // the tries of a way back
		}
		if begun[hook] > most {
			return fmt.Sprintf("S2: %s was started %d times:\n%s", hook, begun[hook], data)
		}
	}
	return ""
}
