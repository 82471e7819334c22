package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/loopdisk"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// trio is three coordinators on machines of their own, each with a disk of its own,
// and hosts on others.
type trio struct {
	*site
	all     []*coordinator
	hosts   []string
	noticed int    // full disks
	witness string // what hooks wrote: a file that no coordinator knows of
}

// coordinator is one of them.
type coordinator struct {
	*machine
	address string
	disk    *loopdisk.Disk
	conn    *grpc.ClientConn
	api     controlv1.ControlServiceClient
}

// newTrio starts them.
func newTrio(t *testing.T) *trio {
	t.Helper()
	w := &trio{site: newSite(t), hosts: []string{"web-1", "web-2", "web-3"}}
	w.witness = filepath.Join(w.dir, "witness")
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs(t, w.dir)
		}
	})
	ops := w.add("ops", "10.0.0.5")
	for i, name := range []string{"c1", "c2", "c3"} {
		c := &coordinator{machine: w.add(name, fmt.Sprintf("10.0.0.1%d", i+1)), address: fmt.Sprintf("10.0.0.1%d", i+1)}
		c.newDisk()
		w.all = append(w.all, c)
		if i > 0 {
			w.join(c, w.all[0])
			continue
		}
		c.serve("dcoord", "--bootstrap", "--name", name, "--advertise", c.address)
		c.ready()
		ops.run("cp -r " + filepath.Join(c.lib, "coordinator", "operator") + " admin && " +
			"dctl login prod -C 10.0.0.11:7100,10.0.0.12:7100,10.0.0.13:7100 --credentials admin")
	}
	cred, err := identity.Load(filepath.Join(w.dir, "admin"))
	must(t, err)
	for _, c := range w.all {
		c.conn, err = rpc.Dial([]string{c.address + ":7100"}, cred.Client(), grpc.WithContextDialer(ops.dial))
		must(t, err)
		t.Cleanup(func() { _ = c.conn.Close() })
		c.api = controlv1.NewControlServiceClient(c.conn)
	}
	w.whole()
	ops.run("dctl token create --role agent --uses 3 > agents.token")
	for i, h := range w.hosts {
		w.add(h, fmt.Sprintf("10.0.0.3%d", i+1))
		w.enrol(h, "agents.token --env HOST="+h)
	}
	ops.await("dctl hosts list --wait 3", "web-3")
	return w
}

// newDisk gives the coordinator an empty disk.
func (c *coordinator) newDisk() { c.disk = loopdisk.Mount(c.site.T, c.lib) }

// dial connects from the machine. A socket is of the network in which it is made.
func (m *machine) dial(ctx context.Context, address string) (net.Conn, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	there, err := os.Open("/var/run/netns/" + m.ns())
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", address)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, errors.Join(err, back) // the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// ready waits until the coordinator says that it serves.
func (c *coordinator) ready() {
	c.site.Helper()
	c.says(`"event":"ready"`, time.Minute)
}

// says waits until the log of the coordinator's newest start has a text.
func (c *coordinator) says(text string, limit time.Duration) {
	c.site.Helper()
	c.site.poll(limit, c.name+" says "+text, func() bool { return strings.Contains(c.said(), text) })
}

// said is the log of the coordinator's newest start.
func (c *coordinator) said() string {
	b, err := os.ReadFile(filepath.Join(c.site.dir, c.name+".log"))
	must(c.site.T, err)
	return string(b)
}

// start starts it again on what it has.
func (c *coordinator) start() {
	c.site.Helper()
	must(c.site.T, os.Rename(filepath.Join(c.site.dir, c.name+".log"),
		filepath.Join(c.site.dir, fmt.Sprintf("%s-%d.log", c.name, time.Now().UnixNano()))))
	c.serve(c.again...)
}

// gone waits until its process has ended, and returns the exit code.
func (c *coordinator) gone(limit time.Duration) int {
	c.site.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		c.site.Fatalf("%s has not ended within %s", c.name, limit)
	}
	code := c.service.ProcessState.ExitCode()
	c.service = nil
	return code
}

// join makes it a member, through another.
func (w *trio) join(c, through *coordinator) {
	w.Helper()
	w.machines["ops"].run("dctl token create --role coordinator > " + c.name + ".token")
	_ = os.Remove(filepath.Join(w.dir, c.name+".log")) // there is none the first time
	c.serve("dcoord", "--name", c.name, "--advertise", c.address, "--join", through.address+":7100", "--join-token-file",
		c.name+".token")
	c.ready()
}

// leader returns who leads, by its own word, nil for nobody.
func (w *trio) leader() *coordinator {
	for _, c := range w.all {
		if s := w.status(c); s != nil && s.Leader == c.name {
			return c
		}
	}
	return nil
}

func (w *trio) status(c *coordinator) *controlv1.ClusterStatusResponse {
	ctx, cancel := context.WithTimeout(w.Context(), time.Second)
	defer cancel()
	s, err := c.api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
	if err != nil {
		return nil
	}
	return s
}

// whole waits until three vote, live, and have applied the same, and returns the leader.
func (w *trio) whole() (leader *coordinator) {
	w.Helper()
	w.poll(90*time.Second, "three coordinators vote and keep up", func() bool {
		if leader = w.leader(); leader == nil {
			return false
		}
		s, keep := w.status(leader), 0
		for _, c := range s.GetCoordinators() {
			if c.Voter && c.Alive && c.Applied+50 > s.Index {
				keep++
			}
		}
		return keep == len(w.all)
	})
	return leader
}

// poll waits for what another process does.
func (s *site) poll(limit time.Duration, what string, ok func() bool) {
	s.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("waited %s for: %s", limit, what)
		}
	}
}

// others are the coordinators beside one.
func (w *trio) others(one *coordinator) (out []*coordinator) {
	for _, c := range w.all {
		if c != one {
			out = append(out, c)
		}
	}
	return out
}
