package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
	"github.com/groundswell/groundswell/internal/loopdisk"
)

// onDisk starts a fleet one of whose coordinators has its log on a disk of its
// own.
func onDisk(t *testing.T, coordinator string, agents int) (*world, *loopdisk.Disk) {
	t.Helper()
	dir := t.TempDir()
	disk := loopdisk.Mount(t, filepath.Join(dir, coordinator, "raft"))
	w := startIn(t, dir, 3, agents)
	t.Cleanup(disk.Thaw) // before the fleet is stopped: what hangs cannot be killed
	return w, disk
}

// said returns what a coordinator has logged.
func (w *world) said(c *devfleet.Coordinator) string {
	w.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "logs", c.Name+".log"))
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

// refuses reports whether nobody listens at an address.
func refuses(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return true
	}
	_ = conn.Close()
	return false
}

// TestALeaderWhoseDiskHangs: the others elect one, the deployment goes on, agents
// go to others; the process says why and ends as soon as the kernel lets it, and
// starts once the disk answers.
func TestALeaderWhoseDiskHangs(t *testing.T) {
	long(t)
	w, disk := onDisk(t, "c1", 3)
	w.app(oneByOne)
	w.push("v1")
	leader, err := w.fleet.Leader(t.Context())
	if err != nil || leader.Name != "c1" {
		t.Fatalf("the leader is %v, %v", leader, err)
	}
	began := time.Now()
	disk.Freeze()
	w.until(30*time.Second, "it closes its doors", func() bool { return refuses(leader.API) && refuses(leader.Agents) })
	t.Logf("closed after %s", time.Since(began))
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.all("v1")
	if next, err := w.fleet.Leader(t.Context()); err != nil || next == leader {
		t.Errorf("a leader whose disk hangs leads: %v", err)
	}
	w.until(10*time.Second, "it says why", func() bool { return strings.Contains(w.said(leader), "hangs or fails") })

	disk.Thaw() // until then it cannot end: the kernel waits
	code, err := w.fleet.Ended(t.Context(), leader)
	if err != nil || code == 0 {
		t.Errorf("it ended with %d, %v", code, err)
	}
	disk.Freeze()
	up := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { up <- w.fleet.RestartCoordinator(ctx, leader) }()
	w.until(15*time.Second, "it waits for the disk and says so", func() bool {
		return strings.Contains(w.said(leader), "waiting for the disk")
	})
	disk.Thaw()
	if err := <-up; err != nil {
		t.Error(err)
	}
}

// TestALeaderWhoseDiskFails: every write fails with EIO. It ends with the cause in
// one line, and the others go on.
func TestALeaderWhoseDiskFails(t *testing.T) {
	long(t)
	w, disk := onDisk(t, "c1", 3)
	w.app(oneByOne)
	w.push("v1")
	leader, err := w.fleet.Leader(t.Context())
	if err != nil || leader.Name != "c1" {
		t.Fatalf("the leader is %v, %v", leader, err)
	}
	disk.Break()
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.all("v1")
	code, err := w.fleet.Ended(t.Context(), leader)
	lines := strings.Split(strings.TrimSpace(w.said(leader)), "\n")
	if last := lines[len(lines)-1]; err != nil || code == 0 ||
		!strings.HasPrefix(last, "dcoord: the disk of this coordinator") ||
		!strings.Contains(last, "input/output error") {
		t.Errorf("it ended with %d, %v: %s", code, err, last)
	}
}

// TestAFollowerWhoseDiskHangs delays nothing but its own hosts, which it sends to
// others after three seconds.
func TestAFollowerWhoseDiskHangs(t *testing.T) {
	long(t)
	w, disk := onDisk(t, "c3", 3)
	w.app(oneByOne)
	w.push("v1")
	w.push("v2")
	took := func(rev string) time.Duration {
		began := time.Now()
		w.must("deploy", "--app", "hello", "--rev", rev)
		return time.Since(began)
	}
	before := took("v1")
	disk.Freeze()
	after := took("v2")
	w.all("v2")
	t.Logf("a deployment took %s, and %s with a follower's disk frozen", before, after)
	if leader, err := w.fleet.Leader(t.Context()); err != nil || leader.Name == "c3" {
		t.Errorf("the leader is %v, %v", leader, err)
	}
	disk.Thaw()
}

// TestAStoppedLeader: what is asked of a follower is answered by the next leader,
// long before the connection to the stopped one counts as dead, and once.
func TestAStoppedLeader(t *testing.T) {
	long(t)
	w := start(t, 3, 1)
	w.app(oneByOne)
	leader, err := w.fleet.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	follower := ""
	for _, c := range w.fleet.Coordinators() {
		if c != leader {
			follower = c.API
		}
	}
	w.must("freeze", "--app", "hello", "--reason", "before", "--coordinator", follower)
	if err := w.fleet.Signal(leader, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.fleet.Signal(leader, syscall.SIGCONT) }() // it may have ended
	began := time.Now()
	// Without a change of the leader its answer is waited for for 8 seconds, and a
	// connection that does not answer is given up after 10 to 15.
	w.must("freeze", "--app", "hello", "--reason", "stock-taking", "--coordinator", follower, "--timeout", "7s")
	t.Logf("answered after %s", time.Since(began))
	if out := w.must("status", "--coordinator", follower); !strings.Contains(out, "stock-taking") {
		t.Errorf("the freeze is not there:\n%s", out)
	}
}

// TestAStoppedAgentIsNamed: its kernel keeps the stream, and nobody answers on it.
func TestAStoppedAgentIsNamed(t *testing.T) {
	long(t)
	w := start(t, 3, 3)
	victim := w.fleet.Hosts[1]
	w.until(20*time.Second, "all gossip", func() bool {
		out, _ := w.dctl("hosts", "list")
		return strings.Count(out, "connected") >= 3 && !strings.Contains(out, "degraded")
	})
	if err := w.fleet.SignalAgent(victim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.fleet.SignalAgent(victim, syscall.SIGCONT) }() // it may have ended
	began := time.Now()
	// The keepalive of its connection alone would take 10 to 15 seconds beside.
	w.until(12*time.Second, "the stopped host is named", func() bool {
		out, _ := w.dctl("hosts", "show", victim.Name)
		return strings.Contains(out, "unreachable")
	})
	t.Logf("a stopped host was named after %s", time.Since(began))
	if err := w.fleet.SignalAgent(victim, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.WaitConnected(t.Context(), 3); err != nil {
		t.Error(err)
	}
}
