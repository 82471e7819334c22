package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// lasts is how long a fault lasts that does not end by itself: longer than a replica
// needs to know that it is cut off, and than reads may be old.
const lasts = 6500 * time.Millisecond

// fault is what may happen to a coordinator. do makes it happen, waits until it has its
// effect, which it proves, and ends it; the coordinator runs again then.
type fault struct {
	name string
	do   func(w *trio, c *coordinator)
}

var faults = []fault{
	{"kill -9", func(w *trio, c *coordinator) {
		c.kill()
		w.succeeded(c)
		c.start()
	}},
	{"stopped", func(w *trio, c *coordinator) {
		must(w.T, c.service.Process.Signal(syscall.SIGSTOP))
		w.poll(5*time.Second, c.name+" stands still", func() bool { return c.processState() == "T" })
		w.during(lasts)
		w.succeeded(c)
		must(w.T, c.service.Process.Signal(syscall.SIGCONT))
	}},
	{"isolated", func(w *trio, c *coordinator) { w.cuts(c, true, cut{in: true, out: true}) }},
	{"away from the others", func(w *trio, c *coordinator) { w.cuts(c, true, w.towards(c, cut{in: true, out: true})...) }},
	{"deaf", func(w *trio, c *coordinator) { w.cuts(c, true, w.towards(c, cut{in: true})...) }},
	{"mute", func(w *trio, c *coordinator) { w.cuts(c, true, w.towards(c, cut{out: true})...) }},
	{"one link", func(w *trio, c *coordinator) {
		w.cuts(c, false, cut{in: true, out: true, address: w.others(c)[0].address})
	}},
	{"loss of a third", func(w *trio, c *coordinator) {
		w.cuts(c, false, w.towards(c, cut{in: true, out: true, percent: 33})...)
	}},
	{"frozen disk", func(w *trio, c *coordinator) {
		c.disk.Freeze()
		w.poll(30*time.Second, c.name+" closes its doors", func() bool { return c.refuses() })
		w.succeeded(c)
		c.disk.Thaw() // until then it cannot end
		if code := c.gone(30 * time.Second); code == 0 {
			w.Errorf("%s, whose disk hung, ended with 0", c.name)
		}
		c.start()
	}},
	{"full disk", func(w *trio, c *coordinator) {
		c.disk.Fill() // until not a byte fits
		before := strings.Count(c.said(), fullWords)
		w.during(lasts)
		w.noticed += strings.Count(c.said(), fullWords) - before
		c.disk.Empty()
		w.poll(time.Minute, c.name+" has room again", func() bool { return c.takes() })
	}},
	{"failing disk", func(w *trio, c *coordinator) {
		c.disk.Break()
		if code := c.gone(time.Minute); code == 0 || !strings.Contains(c.said(), "input/output error") {
			w.Errorf("%s, whose disk failed, ended with %d, and says no input/output error", c.name, code)
		}
		w.succeeded(c)
		c.disk.Repair()
		c.start()
	}},
	{"changed word", func(w *trio, c *coordinator) {
		c.kill()
		c.changeWord("registers", "registerz")
		c.start()
		if code := c.gone(time.Minute); code == 0 || !strings.Contains(c.said(), "checksum") {
			w.Errorf("%s, whose log was changed, ended with %d: %s", c.name, code, c.said())
		}
		w.replace(c)
	}},
	{"replaced", func(w *trio, c *coordinator) {
		c.kill()
		w.replace(c)
	}},
}

// fullWords are what a coordinator says whose log finds no room. One whose file has room
// inside, because a snapshot has taken the place of entries, goes on for a while.
const fullWords = "the disk is full"

// processState is the kernel's letter for its process.
func (c *coordinator) processState() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.service.Process.Pid))
	must(c.site.T, err)
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[0]
}

// refuses reports whether nobody listens at its API.
func (c *coordinator) refuses() bool {
	ctx, cancel := context.WithTimeout(c.site.Context(), time.Second)
	defer cancel()
	conn, err := c.site.machines["ops"].dial(ctx, c.address+":7100")
	if err == nil {
		_ = conn.Close()
	}
	return err != nil && strings.Contains(err.Error(), "refused")
}

// takes reports whether a request that came to it was done.
func (c *coordinator) takes() bool {
	ctx, cancel := context.WithTimeout(c.site.Context(), firstTry)
	defer cancel()
	_, err := c.api.SetFreeze(ctx, &controlv1.SetFreezeRequest{
		Mutation: mutation("is there room"), App: "registers", Group: "probe",
	})
	return err == nil
}

// changeWord changes a word throughout its log, as long as the other.
func (c *coordinator) changeWord(from, to string) {
	c.site.Helper()
	path := filepath.Join(c.lib, "coordinator", "raft", "raft.db")
	data, err := os.ReadFile(path)
	must(c.site.T, err)
	changed := bytes.ReplaceAll(data, []byte(from), []byte(to))
	if bytes.Equal(changed, data) {
		c.site.Fatalf("%s does not hold %q", path, from)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(c.site.T, err)
	defer f.Close()
	for at := 0; ; at += len(to) { // in place: the file may have holes, and be larger than the disk
		next := bytes.Index(changed[at:], []byte(to))
		if next < 0 {
			return
		}
		at += next
		_, err := f.WriteAt([]byte(to), int64(at))
		must(c.site.T, err)
	}
}

// during lets clients ask while a fault lasts.
func (w *trio) during(d time.Duration) { time.Sleep(d) }

// succeeded waits until another than c leads.
func (w *trio) succeeded(c *coordinator) {
	w.Helper()
	w.poll(30*time.Second, "another leads than "+c.name, func() bool {
		for _, o := range w.others(c) {
			if s := w.status(o); s != nil && s.Leader != "" && s.Leader != c.name {
				return true
			}
		}
		return false
	})
}

// towards is a cut towards each of the others.
func (w *trio) towards(c *coordinator, what cut) (out []cut) {
	for _, o := range w.others(c) {
		what.address = o.address
		out = append(out, what)
	}
	return out
}

// cuts has rules drop packets at the coordinator for a while; another has to lead then.
func (w *trio) cuts(c *coordinator, deposes bool, rules ...cut) {
	w.Helper()
	c.cut(rules...)
	w.during(lasts)
	if deposes {
		w.succeeded(c)
	}
	if dropped := c.heal(); dropped == 0 {
		w.Errorf("%s: %v dropped nothing", c.name, rules)
	}
}

// replace takes the coordinator out of the cluster, as its machine is lost, and gives
// another its name.
func (w *trio) replace(c *coordinator) {
	w.Helper()
	w.succeeded(c)
	ops, through := w.machines["ops"], w.others(c)[0]
	ops.run("dctl cluster remove " + c.name + " -m replaced")
	c.disk.Unmount()
	c.newDisk()
	w.join(c, through)
}

// TestClientsUnderFaults breaks the leader in every way there is, at the steps of
// deployments that run, while clients ask all coordinators: what they are told is what
// one machine would have told that does each request once, nothing of it is lost, and
// no wave goes without its bake. FAULTS=each does every fault once, FAULTS=all each fault at each step, "FAULTS=all
// text" those that have it in their name, FAULTS=text those at one step.
func TestClientsUnderFaults(t *testing.T) {
	long(t)
	which := os.Getenv("FAULTS")
	if which == "" {
		t.Skip("make faults runs it")
	}
	w := newTrio(t)
	w.subject()
	c := w.newCrowd()
	first := w.submit("v1")
	deployments := map[string]string{first: "v1"}
	if status := w.ended(first); status != "succeeded" {
		t.Fatalf("the first deployment: %s", status)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c.start(seed)

	plan := planned(which)
	for i, p := range plan {
		id, rev := w.under(p, i)
		deployments[id] = rev
		if broken := c.verdict(); len(broken) > 0 {
			t.Fatalf("%s, or before: %s", p, strings.Join(broken[:min(len(broken), 10)], "\n"))
		}
	}
	c.end()
	w.account(c, deployments)
	if len(plan) == 0 || len(deployments) != len(plan)+1 {
		t.Errorf("%d faults of %d were reached", len(deployments)-1, len(plan))
	}
	waves := w.judge(deployments)
	began := time.Now()
	if err := c.history.Check(5 * time.Minute); err != nil {
		t.Error(err)
	}
	t.Logf("%d faults: %d requests acknowledged, %d of them again, %d calls without an answer, "+
		"%d operations judged in %.1f s, %d bakes between waves", len(plan), c.acked.Load(), c.again.Load(),
		c.tries.Load(), c.history.Len(), time.Since(began).Seconds(), waves)
	if w.noticed == 0 && slices.ContainsFunc(plan, func(p injection) bool { return p.fault.name == "full disk" }) {
		t.Error("no coordinator noticed that its disk was full")
	}
	if least := int64(len(plan)) * 100; c.acked.Load() < least {
		t.Errorf("%d requests were acknowledged, at least %d are asked for", c.acked.Load(), least)
	}
}

// injection is a fault at a step of a deployment that runs, of its leader or of a
// follower.
type injection struct {
	fault    fault
	step     step
	follower bool
}

func (p injection) String() string {
	who := map[bool]string{false: "leader", true: "follower"}[p.follower]
	return who + " " + p.fault.name + " while " + p.step.name
}

// planned are the injections that FAULTS asks for: all of them, or every fault of the
// leader at one step each, and of a follower those that others might wait for.
func planned(which string) (out []injection) {
	which, all := strings.CutPrefix(which, "all")
	which = strings.TrimSpace(strings.TrimPrefix(which, "each"))
	for i, f := range faults {
		for j, s := range steps {
			if strings.Contains(f.name, which) && (all || j == i%len(steps)) {
				out = append(out, injection{f, s, false})
			}
		}
	}
	for i, f := range faults {
		if all && strings.Contains(f.name, which) || !all && which == "" && (f.name == "frozen disk" || f.name == "stopped") {
			out = append(out, injection{f, steps[(i+2)%len(steps)], true})
		}
	}
	return out
}

// under deploys, has a fault happen at a step, and waits until all is well.
func (w *trio) under(p injection, n int) (id, rev string) {
	w.Helper()
	rev = []string{"v2", "v1"}[n%2]
	want := "succeeded"
	if p.step.bad {
		rev, want = "bad", "rolled_back"
	}
	w.whole()
	began := time.Now()
	id = w.submit(rev)
	at := w.reach(id, p.step)
	if p.follower {
		at = w.others(at)[n%2]
	}
	p.fault.do(w, at)
	if got := w.ended(id); got != want {
		w.Errorf("%s: deployment %s of %s: %s, want %s", p, id, rev, got, want)
	}
	w.whole()
	w.Logf("---- %s: %s: %.1f s", at.name, p, time.Since(began).Seconds())
	return id, rev
}

// account looks for everything that was acknowledged, at each coordinator.
func (w *trio) account(c *crowd, deployments map[string]string) {
	w.Helper()
	w.whole()
	for _, at := range w.all {
		out, err := at.api.ListRevisions(w.Context(), &controlv1.ListRevisionsRequest{App: "registers"})
		must(w.T, err)
		there := map[string]int{}
		for _, r := range out.Revisions {
			there[r.Name]++
		}
		lost, twice := 0, 0
		for name := range c.revisions {
			if there[name] == 0 {
				lost++
			}
		}
		for name, n := range there {
			if n > 1 || !c.revisions[name] && !c.unsure[name] {
				twice++
			}
		}
		if lost+twice > 0 || len(c.revisions) == 0 {
			w.Errorf("%s: of %d revisions that were acknowledged %d are lost, and %d are there that nobody asked for, or twice",
				at.name, len(c.revisions), lost, twice)
		}
		for id := range deployments {
			if d := w.deploymentAt(id, at); d == nil || !d.Deployment.Terminal {
				w.Errorf("%s: deployment %s, which had ended, is %v", at.name, id, d)
			}
		}
	}
}
