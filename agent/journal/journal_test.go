package journal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/agent/journal"
	"github.com/groundswell/groundswell/agent/task"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_JOURNAL_DIR"); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child carries a deployment that fails and reverts to its end and is killed
// by itself at the failpoint: "before N" or "after N" writes.
func child(dir string) {
	var at string
	var n int
	if _, err := fmt.Sscan(os.Getenv("TEST_JOURNAL_KILL"), &at, &n); err != nil {
		panic(err)
	}
	writes := 0
	kill := func(when string) {
		if when == at && writes == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	j, err := journal.Open(dir)
	if err != nil {
		panic(err)
	}
	carry(j, func(write func() error) {
		writes++
		kill("before")
		if err := write(); err != nil {
			panic(err)
		}
		fmt.Println(writes) // what the world may know: it is durable
		kill("after")
	})
	_ = j.Close()
	os.Exit(0)
}

// carry does all steps that are due, then, once, a second deployment.
func carry(j *journal.Journal, write func(func() error)) {
	for _, a := range []task.Assignment{
		{Generation: 1, App: "www", Permit: task.PermitConditional, Goal: "v1"},
		{Generation: 2, App: "www", Permit: task.PermitNormal, Goal: "v2"},
	} {
		t := j.Target("www").State()
		if t.Base.Generation < a.Generation && t.Assignment.Generation < a.Generation {
			write(func() error { return j.Assign(a) })
		}
		for {
			s := j.Target("www").State().Next
			if s.Kind == task.KindWait {
				break
			}
			if !s.Resume {
				write(func() error { return j.Begin("www", s) })
			}
			out := task.OutcomeOK
			if s.Revision == "v2" && s.Event == "ValidateService" {
				out = task.OutcomeFailed
			}
			write(func() error { return j.End("www", out, "") })
		}
	}
}

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func describe(t journal.Target) string {
	s := t.State()
	return fmt.Sprintf("%d %s running=%s good=%s previous=%s next=%s resume=%v",
		s.Base.Generation, s.Base.Result, s.Installed, t.LastGood, t.Previous, s.Next.ID(), s.Next.Resume)
}

// A reopened journal is as it was after the write that the kill hit, or before
// it. The end of a step may be missing, because it becomes durable with the
// next record; the beginning of one and the close of a generation may not.
func TestKillAtEveryRecord(t *testing.T) {
	j := open(t, t.TempDir())
	states := []string{describe(j.Target("www"))}
	carry(j, func(write func() error) {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		states = append(states, describe(j.Target("www")))
	})
	last := states[len(states)-1]
	if !strings.HasPrefix(last, "2 failed running=v1 good=v1") {
		t.Fatalf("ended as %s", last)
	}
	closed := 0
	for n := 1; n < len(states); n++ {
		for when, want := range map[string]string{"before": states[n-1], "after": states[n]} {
			dir := t.TempDir()
			killed(t, dir, fmt.Sprintf("%s %d", when, n), n)
			j := open(t, dir)
			at := n
			if when == "before" {
				at--
			}
			got := describe(j.Target("www"))
			if lost := at > 0 && got == states[at-1] && strings.HasSuffix(got, "resume=true"); got != want && !lost {
				t.Fatalf("killed %s write %d: %s\nwant %s", when, n, got, want)
			}
			if strings.Contains(want, "-wait") {
				closed++
				if got != want {
					t.Fatalf("killed %s write %d, which closed a generation: %s\nwant %s", when, n, got, want)
				}
			}
			carry(j, func(write func() error) {
				if err := write(); err != nil {
					t.Fatal(err)
				}
			})
			if got := describe(j.Target("www")); got != last {
				t.Fatalf("killed %s write %d, then carried on: %s\nwant %s", when, n, got, last)
			}
		}
	}
	if closed == 0 {
		t.Error("no write closed a generation")
	}
}

func killed(t *testing.T, dir, at string, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_JOURNAL_DIR="+dir, "TEST_JOURNAL_KILL="+at)
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child %s (%d): %v, want to be killed", at, n, err)
	}
}

// A torn last record is as if it had never been written, at every cut.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.Assign(task.Assignment{Generation: 1, App: "www", Permit: task.PermitNormal, Goal: "v1"}); err != nil {
		t.Fatal(err)
	}
	want := describe(j.Target("www"))
	path := filepath.Join(dir, "journal")
	before, _ := os.Stat(path)
	if err := j.Begin("www", j.Target("www").State().Next); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	_ = j.Close()
	for cut := before.Size(); cut < int64(len(whole)); cut++ {
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, "journal"), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := describe(open(t, torn).Target("www")); got != want {
			t.Fatalf("cut at %d: %s", cut, got)
		}
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if _, err := journal.Open(dir); !errors.Is(err, journal.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestFence(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	a := task.Assignment{Generation: 5, App: "www", Permit: task.PermitNone, Goal: "v1"}
	if err := j.Assign(a); err != nil {
		t.Fatal(err)
	}
	for _, g := range []uint64{5, 4} {
		a.Generation = g
		if err := j.Assign(a); !errors.Is(err, journal.ErrStale) {
			t.Errorf("generation %d: %v", g, err)
		}
	}
	carry(j, func(write func() error) { _ = write() })
	if got := j.Target("www").State().Base; got.Generation != 5 || got.Result != task.ResultIdle {
		t.Errorf("got %+v", got)
	}
	_ = j.Close()
	a.Generation = 5
	if err := open(t, dir).Assign(a); !errors.Is(err, journal.ErrStale) {
		t.Errorf("after reopening: %v", err)
	}
}

// The file stays small over many deployments, and what is told survives.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for g := range uint64(60) {
		a := task.Assignment{
			Generation: g + 1, App: fmt.Sprintf("app%d", g%3), Permit: task.PermitNormal,
			Goal: fmt.Sprintf("v%d", g),
		}
		if err := j.Assign(a); err != nil {
			t.Fatal(err)
		}
		for s := j.Target(a.App).State().Next; s.Kind != task.KindWait; s = j.Target(a.App).State().Next {
			if err := errors.Join(j.Begin(a.App, s), j.End(a.App, task.OutcomeOK, "")); err != nil {
				t.Fatal(err)
			}
		}
	}
	st, err := os.Stat(filepath.Join(dir, "journal"))
	if err != nil || st.Size() > 128<<10 {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
	want := describe(j.Target("app2"))
	if !strings.Contains(want, "running=v59 good=v59 previous=v56") {
		t.Errorf("got %s", want)
	}
	_ = j.Close()
	j = open(t, dir)
	if got := describe(j.Target("app2")); got != want || len(j.Apps()) != 3 {
		t.Errorf("reopened: %s, want %s", got, want)
	}
	if err := j.Forget("app2"); err != nil || len(j.Apps()) != 2 {
		t.Errorf("forget: %v", err)
	}
}

func TestCounterNeverRepeats(t *testing.T) {
	dir := t.TempDir()
	var last uint64
	for life := range 4 {
		j := open(t, dir)
		for range 3 {
			c, err := j.NextCounter("www", 0)
			if err != nil || c <= last {
				t.Fatalf("life %d: counter %d after %d, %v", life, c, last, err)
			}
			last = c
		}
		if c, err := j.NextCounter("www", last+5000); err != nil || c != last+5001 {
			t.Fatalf("over a floor: %d, %v", c, err)
		}
		last += 5001
		_ = j.Close()
	}
}
