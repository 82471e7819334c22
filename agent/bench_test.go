package agent_test

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// TestBench measures what the agent costs, and beside it, in the same run, the
// same work done by plain tools. `make bench-agent` runs it with BENCH_BIN, the
// folder of the programs; it prints a table and fails beyond the limits.
// Limits are ratios of CPU time, which other load on the machine moves least,
// except for the deployment of a few files, which is mostly waiting: there it
// is the least of nine.
func TestBench(t *testing.T) {
	bin := os.Getenv("BENCH_BIN")
	if bin == "" {
		t.Skip("only by make bench-agent")
	}
	b := &bench{T: t, bin: bin, dir: t.TempDir()}
	must(t, os.Chmod(b.dir, 0o755))
	b.small()
	b.large()
	b.fleet()
	b.print()
}

// TestBenchManyFiles measures 30,000 small files in memory, where creating them
// is all there is, beside tar and cp.
func TestBenchManyFiles(t *testing.T) {
	bin := os.Getenv("BENCH_BIN")
	if bin == "" {
		t.Skip("only by make bench-agent")
	}
	dir, err := os.MkdirTemp("/dev/shm", "bench-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	b := &bench{T: t, bin: bin, dir: dir}
	b.many()
	b.print()
}

const manyFiles = 30_000

// many compares a cold deployment that installs all files with tar and a copy,
// and what permissions cost with what chmod costs, five times each in turn.
func (b *bench) many() {
	app := filepath.Join(b.dir, "many", "app")
	for i := range manyFiles {
		dir := filepath.Join(app, fmt.Sprintf("d%d/e%d", i%300, i%7))
		must(b.T, os.MkdirAll(dir, 0o755))
		must(b.T, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)),
			[]byte(strings.Repeat(fmt.Sprintf("file %d\n", i), 40)), 0o644))
	}
	dst := filepath.Join(b.dir, "dst")
	bundle := func(name, permission string) string {
		spec := benchHead + "files:\n  - {source: app, destination: " + dst + "}\n"
		if permission != "" {
			spec += "permissions:\n  - {object: " + dst + ", " + permission + "}\n"
		}
		must(b.T, os.WriteFile(filepath.Join(b.dir, "many", "appspec.yml"), []byte(spec), 0o644))
		archive := filepath.Join(b.dir, name+".tgz")
		b.run("tar", "-C", filepath.Join(b.dir, "many"), "-czf", archive, ".")
		return archive
	}
	bare, mode, acls := bundle("bare", ""), bundle("mode", "mode: 640"), bundle("acls", "acls: ['u:65534:r']")
	costs := map[string][]cost{}
	for range 5 {
		costs["plain"] = append(costs["plain"], b.run("sh", "-c", "mkdir t && tar -xzf $0 -C t && cp -a t/app c", bare))
		for _, archive := range []string{bare, mode, acls} {
			costs[archive] = append(costs[archive], b.deploy(archive, "root"))
			must(b.T, os.RemoveAll(filepath.Join(b.dir, "root")))
			if archive == acls {
				costs["chmod"] = append(costs["chmod"], b.run("chmod", "-R", "o-r", dst))
			}
			must(b.T, os.RemoveAll(dst))
		}
		b.run("rm", "-r", "t", "c")
	}
	plain, ours, chmod := median(costs["plain"]), median(costs[bare]), median(costs["chmod"])
	b.row("30,000 small files in memory, CPU of tar and cp", ours.CPU.Seconds()/plain.CPU.Seconds(), 1.5, "x",
		"ours %s, plain %s", ours, plain)
	for archive, what := range map[string]string{mode: "a mode", acls: "an ACL"} {
		c := median(costs[archive])
		b.row(what+" for each of them, CPU of chmod -R", max(0, (c.CPU-ours.CPU).Seconds())/chmod.CPU.Seconds(), 3, "x",
			"with it %s, chmod %s", c, chmod)
	}
	b.row("peak memory, 30,000 files", float64(ours.RSS)/1024, 64, "MB", "")
}

type bench struct {
	*testing.T
	bin, dir string
	rows     []benchRow
}

// benchRow is one line of the table. The limit is on value.
type benchRow struct {
	what         string
	value, limit float64
	unit, detail string
}

func (b *bench) row(what string, value, limit float64, unit, detail string, args ...any) {
	b.rows = append(b.rows, benchRow{what, value, limit, unit, fmt.Sprintf(detail, args...)})
}

func (b *bench) print() {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%-52s %9s %9s  %s\n", "what", "measured", "limit", "")
	for _, r := range b.rows {
		mark := ""
		if r.value > r.limit {
			mark = "  OVER THE LIMIT"
			b.Errorf("%s: %.3g %s, limit %.3g", r.what, r.value, r.unit, r.limit)
		}
		fmt.Fprintf(&out, "%-52s %7.2f %-3s %5.2f %-3s %s%s\n", r.what, r.value, r.unit, r.limit, r.unit,
			r.detail, mark)
	}
	b.Log(out.String())
}

// cost is what a process took, its children included.
type cost struct {
	Wall, CPU time.Duration
	RSS       int64 // KiB, peak
}

// run starts a program by a process of its own: to Linux the peak memory of a
// program is at least what its parent had when it started it, and this one has
// coordinators, stores and bundles.
func (b *bench) run(name string, args ...string) (c cost) {
	b.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{name}, args...)...)
	report := filepath.Join(b.dir, "cost")
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "TEST_COST="+report)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	text, err := os.ReadFile(report)
	must(b.T, err)
	must(b.T, json.Unmarshal(text, &c))
	return c
}

// costly makes the test binary the parent of a program, and writes what it took.
func costly(report string) {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := cmd.ProcessState
	took := cost{time.Since(begin), s.UserTime() + s.SystemTime(), s.SysUsage().(*syscall.Rusage).Maxrss}
	text, err := json.Marshal(took)
	if err == nil {
		err = os.WriteFile(report, text, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

func (b *bench) deploy(bundle, root string) cost {
	return b.run(filepath.Join(b.bin, "dctl"), "local", "deploy", "--app", "www", "--group", "g", "--root",
		filepath.Join(b.dir, root), "--bundle", bundle, "-o", "json")
}

// median of an odd number of tries, by CPU.
func median(tries []cost) cost {
	slices.SortFunc(tries, func(a, b cost) int { return int(a.CPU - b.CPU) })
	return tries[len(tries)/2]
}

const benchHead = "version: 0.0\nos: linux\n"

// small is 3 files and 5 hooks that do nothing.
func (b *bench) small() {
	dir := filepath.Join(b.dir, "small")
	must(b.T, os.Mkdir(dir, 0o755))
	spec := benchHead + "files:\n  - {source: /, destination: " + b.dir + "/small-dst}\nhooks:\n"
	for _, e := range []string{
		"BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService",
		"ApplicationStop",
	} {
		spec += "  " + e + ":\n    - location: h.sh\n"
	}
	for name, text := range map[string]string{"appspec.yml": spec, "h.sh": "#!/bin/sh\n", "a": "1"} {
		must(b.T, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	b.deploy(dir, "small-root") // the first one has nothing to stop
	var walls []time.Duration
	for range 9 {
		walls = append(walls, b.deploy(dir, "small-root").Wall)
	}
	slices.Sort(walls)
	b.row("3 files, 5 no-op hooks, dctl local deploy, wall", walls[0].Seconds(), 0.15, "s",
		"least of 9: other load only adds; median %.3f s", walls[4].Seconds())
}

// tree writes 2,006 files of 100 MB that compress to about a third.
func (b *bench) tree(dir string, seed int64, changed int) {
	r := rand.New(rand.NewSource(seed))
	words := make([]byte, 1<<15)
	r.Read(words)
	for i := range 2006 {
		sub := filepath.Join(dir, fmt.Sprintf("data/d%02d/e%d", i%40, i%5))
		must(b.T, os.MkdirAll(sub, 0o755))
		pick := rand.New(rand.NewSource(int64(i)))
		if i < changed {
			pick = rand.New(rand.NewSource(seed * 1000))
		}
		data := make([]byte, 0, 50_000)
		for len(data) < 49_850 {
			at := pick.Intn(len(words) - 24)
			data = append(data, words[at:at+8+pick.Intn(16)]...)
		}
		must(b.T, os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), data, 0o644))
	}
}

func (b *bench) spec(dir, name string, files bool) string {
	spec := benchHead
	if files {
		spec += "files:\n  - {source: data, destination: " + b.dir + "/" + name + "-dst}\n"
	}
	must(b.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte(spec), 0o644))
	archive := filepath.Join(b.dir, name+".tgz")
	b.run("tar", "-C", dir, "-czf", archive, ".")
	return archive
}

// plain is the work itself: decompress, sha256 and create in one pass, synced.
func (b *bench) plain(archive, dir string) cost {
	script := "mkdir $1 && gzip -dc $0 | tee >(sha256sum >/dev/null) | tar -xf - -C $1 && sync -f $1"
	return b.run("bash", "-c", script, archive, filepath.Join(b.dir, dir))
}

// large compares a cold deployment of a tgz with the plain work, three times
// each in turn.
func (b *bench) large() {
	dir := filepath.Join(b.dir, "large")
	b.tree(dir, 1, 0)
	bare, copied := b.spec(dir, "bare", false), b.spec(dir, "copied", true)
	var plain, ours, both []cost
	for i := range 3 {
		plain = append(plain, b.plain(bare, fmt.Sprintf("plain%d", i)))
		ours = append(ours, b.deploy(bare, fmt.Sprintf("bare-root%d", i)))
		both = append(both, b.deploy(copied, fmt.Sprintf("copied-root%d", i)))
		must(b.T, os.RemoveAll(filepath.Join(b.dir, "copied-dst")))
	}
	p, o, c := median(plain), median(ours), median(both)
	b.row("2,006 files, 100 MB, tgz, cold, CPU of plain tools", o.CPU.Seconds()/p.CPU.Seconds(), 1.2, "x",
		"ours %s, plain %s", o, p)
	b.row("the same with the files copy", c.CPU.Seconds()/p.CPU.Seconds(), 2.4, "x", "ours %s", c)
	b.row("peak memory of dctl local deploy, 100 MB", float64(max(o.RSS, c.RSS))/1024, 64, "MB", "")
	big := filepath.Join(b.dir, "huge")
	must(b.T, os.Mkdir(big, 0o755))
	b.run("bash", "-c", "for i in 1 2 3 4 5; do head -c 100000000 /dev/urandom >"+big+"/f$i; done")
	huge := b.deploy(b.spec(big, "huge", false), "huge-root")
	b.row("the same with 500 MB in 5 files", float64(huge.RSS)/1024, 64, "MB", "%s", huge)
	must(b.T, os.RemoveAll(big))
	must(b.T, os.RemoveAll(filepath.Join(b.dir, "huge-root")))
	for _, name := range []string{
		"plain0", "plain1", "plain2", "bare-root0", "bare-root1", "bare-root2",
		"copied-root0", "copied-root1", "copied-root2",
	} {
		must(b.T, os.RemoveAll(filepath.Join(b.dir, name)))
	}
}

// String is wall and CPU in milliseconds.
func (c cost) String() string {
	return fmt.Sprintf("%d ms (cpu %d)", c.Wall.Milliseconds(), c.CPU.Milliseconds())
}

// fleet measures dagent itself: cold, with 1 % changed, 500 MB, and idle.
func (b *bench) fleet() {
	w := newWorld(b.T)
	w.patience = 5 * time.Minute // of a machine that is busy; what is measured is CPU
	dir := filepath.Join(b.dir, "large")
	var plain []cost
	for i := range 3 {
		plain = append(plain, b.plain(filepath.Join(b.dir, "bare.tgz"), fmt.Sprintf("again%d", i)))
		must(b.T, os.RemoveAll(filepath.Join(b.dir, fmt.Sprintf("again%d", i))))
	}
	p := median(plain)
	must(b.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte(benchHead), 0o644))
	first := w.pushDir(dir, "first")
	next := filepath.Join(b.dir, "next")
	b.tree(next, 1, 20)
	must(b.T, os.WriteFile(filepath.Join(next, "appspec.yml"), []byte(benchHead), 0o644))
	second := w.pushDir(next, "second")
	big := filepath.Join(b.dir, "big")
	must(b.T, os.Mkdir(big, 0o755))
	must(b.T, os.WriteFile(filepath.Join(big, "appspec.yml"), []byte(benchHead), 0o644))
	b.run("bash", "-c", "for i in 1 2 3 4 5; do head -c 100000000 /dev/urandom >"+big+"/f$i; done")
	third := w.pushDir(big, "big")

	d := b.daemon(w)
	cold := d.measure(w, first)
	refilled := filepath.Join(w.o.Root, "cache")
	for end := time.Now().Add(w.patience); countFiles(refilled) <= 2006; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("the idle agent did not refill its cache: %d files of 2006", countFiles(refilled))
		}
	}
	d.calm()
	warm := d.measure(w, second)
	b.row("dagent, cold, CPU of plain tools", cold.CPU.Seconds()/p.CPU.Seconds(), 1.2, "x", "ours %s, plain %s",
		cold, p)
	b.row("dagent, 1 % changed, CPU of its plain work", warm.CPU.Seconds()/p.CPU.Seconds(), 0.3, "x", "ours %s", warm)
	d.measure(w, third)
	b.row("dagent, peak memory, 500 MB", float64(d.status("VmHWM"))/1024, 64, "MB", "")
	d.idle()
}

func countFiles(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// daemon is a dagent of the build.
type daemon struct {
	*bench
	pid int
}

func (b *bench) daemon(w *world) *daemon {
	cmd := exec.Command(filepath.Join(b.bin, "dagent"), "--name", "bench", "--zone", "a", "--root", w.o.Root,
		"--install-root", w.o.InstallRoot,
		"--gossip-bind", "127.0.0.1:0", "--coordinator", w.addr, "--prune-after", "2s", "--log-level", "warn")
	cmd.Env = append(os.Environ(), "GROUNDSWELL_JOIN_TOKEN="+w.token.String())
	cmd.Stderr = w.log
	must(b.T, cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	return &daemon{b, cmd.Process.Pid}
}

// cpu is what the process has used.
func (d *daemon) cpu() time.Duration {
	total := time.Duration(0)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.pid))
	must(d.T, err)
	for _, file := range tasks { // nanoseconds on a CPU, by thread
		if data, err := os.ReadFile(file); err == nil {
			ns, _ := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
			total += time.Duration(ns)
		}
	}
	return total
}

// status is a size from the process's status, in KiB.
func (d *daemon) status(key string) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	must(d.T, err)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	d.Fatalf("no %s in the status of dagent", key)
	return 0
}

// calm waits until the daemon does nothing: what it does in the minutes
// between two deployments is no part of the next.
func (d *daemon) calm() {
	for last := time.Duration(-1); d.cpu()-last > 20*time.Millisecond; time.Sleep(time.Second) {
		last = d.cpu()
	}
	d.run("sync")
}

func (d *daemon) measure(w *world, rev *agentv1.Revision) cost {
	begin, used := time.Now(), d.cpu()
	w.done(rev)
	return cost{Wall: time.Since(begin), CPU: d.cpu() - used}
}

// idle watches the daemon for a minute without work.
func (d *daemon) idle() {
	time.Sleep(15 * time.Second) // until it has given memory back: what is measured is the rest
	used, begin := d.cpu(), time.Now()
	time.Sleep(time.Minute)
	share := 100 * (d.cpu() - used).Seconds() / time.Since(begin).Seconds()
	d.row("dagent, idle, CPU of a core", share, 0.1, "%", "over 60 s")
	d.row("dagent, idle, memory", float64(d.status("VmRSS"))/1024, 20, "MB", "")
}
