package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

func TestPruneKeepsWhatCounts(t *testing.T) {
	w := newWorld(t)
	w.o.KeepReleases, w.o.PruneAfter, w.o.CacheBytes = 2, 50*time.Millisecond, 1
	w.start()
	var all []*agentv1.Revision
	for i := range 4 {
		rev := w.push(fmt.Sprintf("v%d", i), whole())
		all = append(all, rev)
		w.done(rev)
	}
	w.until("old revisions pruned", func() bool {
		list, _ := os.ReadDir(filepath.Join(w.o.Root, "releases", "www", "releases"))
		return len(list) == 2
	})
	for _, rev := range all[2:] { // what runs and the one before
		if _, err := os.Stat(filepath.Join(w.o.Root, "releases", "www", "releases",
			strings.TrimPrefix(rev.Digest, "sha256:"))); err != nil {
			t.Errorf("%s is gone: %v", rev.Name, err)
		}
	}
	w.done(all[2]) // also from the cache alone, or the store again
}

func TestOutputOfADaemonIsKept(t *testing.T) {
	w := newWorld(t)
	w.start()
	b := whole()
	b["ApplicationStart"] = `( n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.02; done ) &
echo $! >"$OUT.pid"
`
	t.Cleanup(func() { _ = w.daemon(syscall.SIGKILL) })
	w.done(w.push("v1", b))
	n := 0
	w.eventually("output after the hook's end in its log", func() bool {
		n++
		id := fmt.Sprintf("d%d", n)
		w.ask(&agentv1.LogRequest{Id: id, App: "www", Event: "ApplicationStart"})
		return strings.Contains(w.output(id), "tick 20")
	})
}

// eventually polls what needs no lock.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited in vain for: %s", what)
		}
	}
}

// TestCoordinatorsAreTold: in Welcome and after it, and remembered.
func TestCoordinatorsAreTold(t *testing.T) {
	w := newWorld(t)
	second, third := newFake(t, w.ca), newFake(t, w.ca)
	w.members = &agentv1.Members{Agents: []string{w.addr, second.addr}}
	stop := w.start()
	w.eventually("what it is told on disk", func() bool {
		b, _ := os.ReadFile(filepath.Join(w.o.Root, "identity", "cluster.json"))
		return strings.Contains(string(b), second.addr)
	})
	w.stop()
	second.until("a session with the one that it told of", func() bool { return second.sessions > 0 })
	second.with(func() {
		second.down(&agentv1.Down{Message: &agentv1.Down_Members{Members: &agentv1.Members{
			Agents: []string{second.addr, third.addr},
		}}})
	})
	w.eventually("the new member on disk", func() bool {
		b, _ := os.ReadFile(filepath.Join(w.o.Root, "identity", "cluster.json"))
		return strings.Contains(string(b), third.addr) && !strings.Contains(string(b), w.addr)
	})
	stop()
	second.stop()
	w.o.Coordinators = nil
	w.start() // it remembers what it was told
	third.until("a session of the next life", func() bool { return third.sessions > 0 })
}

// TestGossipCommandsNothing: who has the ring's key and says to be coordinators
// is not even dialled, and a coordinator that is, is left only for one that
// welcomes the host.
func TestGossipCommandsNothing(t *testing.T) {
	w := newWorld(t)
	w.o.PreferEvery = 20 * time.Millisecond
	other, rogue := newFake(t, w.ca), newFake(t, w.ca)
	for i, f := range []*fake{w.fake, other, rogue, rogue, rogue} {
		ring, err := gossip.Open(gossip.Options{
			Self: gossip.Member{ID: fmt.Sprintf("c%d", i+1), Role: "coordinator", Agent: f.addr}, Bind: "127.0.0.1:0",
			Keys: bytes.Repeat([]byte{7}, 32), Seeds: w.seeds,
		})
		must(t, err)
		t.Cleanup(func() { _ = ring.Close() })
		w.seeds = append(w.seeds, ring.Addr())
	}
	told := &agentv1.Members{Agents: []string{w.addr, other.addr}}
	w.members, other.members = told, told
	w.start()
	// It comes to rest where rendezvous hashing puts it.
	own, calm, last := w.fake, time.Now(), [2]int{}
	w.eventually("a session", func() bool { return w.count()+other.count() > 0 })
	for time.Since(calm) < 500*time.Millisecond {
		for i, f := range []*fake{w.fake, other} {
			if n := f.count(); n != last[i] {
				own, calm, last[i] = f, time.Now(), n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	second := other
	if own == other {
		second = w.fake
	}
	before := second.count()
	own.stop()
	second.until("a session after the failover", func() bool { return second.sessions > before })
	own.with(func() { own.refuse, own.greeted = true, 0 })
	before = second.count()
	own.restart() // alive by gossip all the time, listens, and welcomes nobody
	own.until("attempts to go back", func() bool { return own.greeted > 5 })
	if second.count() != before {
		t.Errorf("a working session was left for one that was refused: %d more", second.count()-before)
	}
	back := own.count()
	own.with(func() { own.refuse = false })
	own.until("the session back", func() bool { return own.sessions > back })
	rogue.mu.Lock()
	defer rogue.mu.Unlock()
	if rogue.sessions+rogue.greeted+rogue.enrolled > 0 {
		t.Error("a stranger of the ring was asked")
	}
}

// After a failover the host goes back to the coordinator that is its own, when
// that one listens again, and not before.
func TestMovesBack(t *testing.T) {
	w := newWorld(t)
	w.o.PreferEvery = 50 * time.Millisecond
	both := []*fake{w.fake, newFake(t, w.ca)}
	told := &agentv1.Members{Agents: []string{both[0].addr, both[1].addr}}
	both[0].members, both[1].members = told, told
	for i, f := range both {
		ring, err := gossip.Open(gossip.Options{
			Self: gossip.Member{ID: fmt.Sprintf("c%d", i+1), Role: "coordinator", Agent: f.addr}, Bind: "127.0.0.1:0",
			Keys: bytes.Repeat([]byte{7}, 32), Seeds: w.seeds,
		})
		must(t, err)
		t.Cleanup(func() { _ = ring.Close() })
		w.seeds = append(w.seeds, ring.Addr())
	}
	var beats atomic.Int64
	w.o.Beat, w.o.BeatEvery = func() { beats.Add(1) }, 5*time.Millisecond
	w.start()
	w.eventually("a session", func() bool { return both[0].count()+both[1].count() > 0 })
	// Where it stays while both listen is its own.
	own, calm, last := 0, time.Now(), [2]int{}
	for time.Since(calm) < 500*time.Millisecond {
		for i, f := range both {
			if n := f.count(); n != last[i] {
				own, calm, last[i] = i, time.Now(), n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	mine, other := both[own], both[1-own]
	before := mine.count()
	mine.stop()
	other.until("a session after the failover", func() bool { return other.sessions > 0 })
	mine.restart()
	mine.until("the session back", func() bool { return mine.sessions > before })
	if beats.Load() == 0 {
		t.Error("the watchdog heard nothing")
	}
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	a, err := agent.New(w.o)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.until("session", func() bool { return w.sessions == 1 })
	file := filepath.Join(w.o.Root, "identity", "tls.crt")
	before, err := os.ReadFile(file)
	must(t, err)
	must(t, a.RenewNow(ctx))
	after, err := os.ReadFile(file)
	must(t, err)
	if bytes.Equal(before, after) {
		t.Error("the certificate on disk is the old one")
	}
	cred, err := identity.Load(filepath.Dir(file))
	must(t, err)
	if who, err := cred.Peer(); err != nil || who.ID != "h-1" {
		t.Errorf("renewed as %v, %v", who, err)
	}
	w.cut() // the new one works
	w.until("another session", func() bool { return w.sessions == 2 })
	cancel()
	must(t, <-ended)
}

func TestHostKeepsItsID(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.until("session", func() bool { return w.sessions == 1 })
	stop()
	must(t, os.WriteFile(filepath.Join(w.o.Root, "host-id"), []byte("h-old"), 0o644))
	must(t, os.RemoveAll(filepath.Join(w.o.Root, "identity")))
	w.start()
	w.until("the next session", func() bool { return w.sessions == 2 })
	if b, _ := os.ReadFile(filepath.Join(w.o.Root, "host-id")); string(b) != "h-old" {
		t.Errorf("enrolled anew as %s", b)
	}
}

func TestTwoApplications(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", hookScripts{"ApplicationStart": say})
	hang := w.push("hang", hookScripts{"ApplicationStart": `while [ ! -e "$OUT.go" ]; do sleep 0.02; done` + "\n"})
	w.grant(hang, func(a *agentv1.Assignment) { a.App, a.Generation = "slow", 7 })
	w.gen = 0
	w.done(v1) // one application's hook holds up no other
	must(t, os.WriteFile(filepath.Join(w.dir, "out.go"), nil, 0o644))
	w.report("slow ends too", func(r *agentv1.Report) bool {
		return r.App == "slow" &&
			r.Result == agentv1.Result_RESULT_DONE
	})
}

func TestLostJournalTakesNoOldResult(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	rev := w.push("v1", whole())
	w.done(rev)
	stop()
	must(t, os.RemoveAll(filepath.Join(w.o.Root, "state")))
	w.with(func() { w.reports, w.items = nil, map[string]*agentv1.Assignment{} })
	w.gen = 0
	w.start()
	w.done(rev) // generation 1 again: its hooks run, no old result is taken over
	if n := strings.Count(w.out(), "ApplicationStart v1"); n != 2 {
		t.Errorf("ApplicationStart ran %d times, want 2:\n%s", n, w.out())
	}
}
