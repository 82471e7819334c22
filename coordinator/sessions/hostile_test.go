package sessions

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// TestNothingEntersThatTheStateWouldDrop: it is acknowledged, and writes
// nothing; what follows it does.
func TestNothingEntersThatTheStateWouldDrop(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	a := s.connect(t, "h1")
	for i := range 40 {
		a.report(&agentv1.Report{App: "not-mine", Counter: uint64(2*i + 1), Evidence: strings.Repeat("x", 512)},
			&agentv1.Report{App: fmt.Sprint("none-", i), Counter: uint64(2*i + 2)})
	}
	a.acked(80)
	if len(s.w.entries) != 0 {
		t.Errorf("%d entries about applications that the host is no target of", len(s.w.entries))
	}
	a.report(&agentv1.Report{App: "www", Counter: 81}, &agentv1.Report{App: "www", Counter: 81},
		&agentv1.Report{App: "other", Counter: 82})
	a.acked(82)
	e := (<-s.w.entries)[0].(deploy.TargetsReported)
	if e.Items[0].App != "www" || len(e.Items) > 2 || len(s.w.entries) != 0 {
		t.Errorf("entered: %+v and %d entries", e.Items, len(s.w.entries))
	}
	a.report(&agentv1.Report{App: "www", Counter: 80}, &agentv1.Report{App: "", Counter: 83})
	a.acked(83)
	if len(s.w.entries) != 0 {
		t.Error("what the log has heard already entered it again")
	}
}

// TestADroppedReportIsAskedForAgain: once the host is a target, and once.
func TestADroppedReportIsAskedForAgain(t *testing.T) {
	s := serve(t)
	s.group(t, "h2")
	s.w.must(t, deploy.HostEnrolled{Host: "h1", Name: "h1", Zone: "z"})
	a := s.connect(t, "h1")
	a.report(&agentv1.Report{App: "www", Counter: 1, Running: "d1"})
	a.acked(1)
	s.w.must(t, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	m := a.down().GetAssignments()
	if len(m.GetItems()) != 1 || !m.Items[0].Report {
		t.Fatalf("not asked: %v", m)
	}
	a.report(&agentv1.Report{App: "www", Counter: 2, Running: "d1"})
	a.acked(2)
	s.w.View(func(st *deploy.State) {
		if got := st.Target("h1", "www").Running; got != "d1" {
			t.Errorf("the cluster believes %q to run", got)
		}
	})
	<-s.w.entries
	s.w.must(t, deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h1"}})
	for len(a.down().GetAssignments().GetRemoved()) == 0 {
	}
	s.w.must(t, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	if m := a.down().GetAssignments(); len(m.GetItems()) != 1 || m.Items[0].Report {
		t.Errorf("asked twice: %v", m)
	}
}

// TestCountersThatCannotBe: who holds a host's credential cannot bring its
// counters to where the host is heard no more.
func TestCountersThatCannotBe(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	for what, r := range map[string]*agentv1.Report{
		"counter":                 {App: "www", Counter: 1<<62 - 1},
		"generation":              {App: "www", Counter: 1, Generation: 1<<62 - 1},
		"counter of another's":    {App: "x", Counter: 1 << 40},
		"counter beyond all ends": {App: "www", Counter: 1<<64 - 1},
	} {
		a := s.connect(t, "h1")
		a.report(r)
		var err error
		for err == nil {
			_, err = a.Recv()
		}
		if err == io.EOF || !strings.Contains(err.Error(), "journal is damaged") {
			t.Errorf("%s: %v", what, err)
		}
	}
	b := s.dial(t, "h1", &agentv1.Hello{Name: "h1", Zone: "z", Counter: 1 << 61})
	if _, err := b.Recv(); err == nil {
		t.Error("a hello from beyond was welcomed")
	}
	if len(s.w.entries) != 0 {
		t.Error("it entered the log")
	}
	// What a restored backup does not know is far less.
	a := s.connect(t, "h1")
	a.report(&agentv1.Report{App: "www", Counter: 1 << 31, Generation: 5000})
	a.acked(1 << 31)
}

// TestTheSlowAreSlowedAlone: reports beyond the bucket wait, in the stream of
// their host.
func TestTheSlowAreSlowedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{State: newWorld(), Log: newWorld()})
		var told []string
		s.o.Limited = func(host, what string) { told = append(told, host+" "+what) }
		up := &agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: []*agentv1.Report{{}}}}}
		begin := time.Now()
		for range reports.Burst + 100 {
			if err := s.pace(t.Context(), "evil", up); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 4*time.Second || took > 6*time.Second { // 100 at 20 a second
			t.Errorf("100 reports beyond the bucket took %s", took)
		}
		begin = time.Now()
		for range reports.Burst {
			if err := s.pace(t.Context(), "good", up); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(begin) != 0 || len(told) == 0 || told[0] != "evil reports" {
			t.Errorf("another host waited %s; told %v", time.Since(begin), told)
		}
		many := &agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{
			Items: make([]*agentv1.Report, mostItems+1),
		}}}
		if err := s.pace(t.Context(), "good", many); err == nil {
			t.Error("a message of any number of reports is taken")
		}
	})
}

// TestNewLabelsWithoutEnd: what a host says of itself enters the log ten times,
// not ten thousand.
func TestNewLabelsWithoutEnd(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	refused := 0
	for i := range 50 {
		a := s.dial(t, "h1", &agentv1.Hello{Name: "h1", Zone: "z", Labels: map[string]string{"n": fmt.Sprint(i)}})
		if _, err := a.Recv(); err != nil {
			if !strings.Contains(err.Error(), "too many") {
				t.Fatal(err)
			}
			refused++
		}
	}
	if n := len(s.w.entries); n > changes.Burst || n == 0 || refused != 50-n {
		t.Errorf("%d entries, %d refused", n, refused)
	}
}

// TestNewProcessesWithoutEnd: what tells processes of an agent apart is written down,
// so there are only so many.
func TestNewProcessesWithoutEnd(t *testing.T) {
	s := serve(t)
	now, began := "i", 0
	s.o.Speaks = func(string) string { return now }
	s.o.Begin = func(_ context.Context, _ string, who Instance) error {
		began++
		now = who.ID
		return nil
	}
	refused := 0
	for i := range 50 {
		a := s.dial(t, "h1", &agentv1.Hello{Name: "h1", Zone: "z", Instance: fmt.Sprint("i", i)})
		if _, err := a.Recv(); err != nil {
			if !strings.Contains(err.Error(), "too many new processes") {
				t.Fatal(err)
			}
			refused++
		}
	}
	if began > processes.Burst+1 || refused != 50-began || began == 0 {
		t.Errorf("%d began, %d were refused", began, refused)
	}
	// The one that speaks comes back as often as it likes.
	for range 5 {
		s.dial(t, "h1", &agentv1.Hello{Name: "h1", Zone: "z", Instance: now}).down()
	}
}

// TestAnUnreachableHostSaysOnceThatItIsBack: by a report about anything, which
// carries nothing else.
func TestAnUnreachableHostSaysOnceThatItIsBack(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	a := s.connect(t, "h1")
	s.w.must(t, deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h1"}}})
	s.w.gate = make(chan struct{})
	for i := range 50 {
		a.report(&agentv1.Report{App: "other", Counter: uint64(i + 1), Evidence: strings.Repeat("x", 512)})
	}
	close(s.w.gate)
	a.acked(50)
	e := (<-s.w.entries)[0].(deploy.TargetsReported)
	if len(e.Items) != 1 || e.Items[0].App != "" || e.Items[0].Evidence != "" || len(s.w.entries) != 0 {
		t.Errorf("%+v, and %d entries", e.Items, len(s.w.entries))
	}
	s.w.View(func(st *deploy.State) {
		if st.Hosts["h1"].Unreachable {
			t.Error("still unreachable")
		}
	})
}
