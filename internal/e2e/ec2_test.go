package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/ec2test"
)

// Instances of an image without any token join by what AWS signs, and are what AWS
// says they are; one whose document another machine holds, or held for long, is told
// what to do.
func TestInstancesJoin(t *testing.T) {
	long(t)
	region := ec2test.New(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	t.Setenv("DCOORD_EC2_ACCOUNTS", "123456789012")
	t.Setenv("DCOORD_EC2_CERTIFICATES", ec2test.File(t, region))
	t.Setenv("DCOORD_EC2_TAGS", "true")
	t.Setenv("AWS_ENDPOINT_URL_EC2", ec2test.API(t, func(instance string) map[string]string {
		return map[string]string{"role": "web", "Name": instance}
	}))
	w := start(t, 3, 0)
	ca := w.issuer()
	document := func(instance string, started time.Time) string {
		return ec2test.Metadata(t, region.Sign(ec2test.Document(started, map[string]string{"instanceId": instance})),
			map[string]string{"placement/availability-zone": "eu-west-1b", "placement/region": "eu-west-1"})
	}
	first := document("i-00000001", time.Now().Add(-time.Minute))

	// of its labels it has no say, of its zone it says nothing
	root := filepath.Join(w.dir, "web-1")
	stop := w.instance(first, root, "--name", "web-1", "--ca", ca, "--label", "role=db")
	w.until(20*time.Second, "web-1 joined", func() bool { return w.host("web-1").State == "connected" })
	if h := w.host("web-1"); h.Zone != "eu-west-1b" || h.Labels["role"] != "web" || h.Labels["Name"] != "i-00000001" {
		t.Errorf("web-1 is %+v", h)
	}
	stop()
	stop = w.instance(first, root, "--name", "web-1", "--ca", ca) // it has an identity now
	w.until(20*time.Second, "web-1 is back", func() bool { return w.host("web-1").State == "connected" })
	if h := w.host("web-1"); len(h.Differences) > 0 { // who says nothing of labels contradicts nothing
		t.Errorf("web-1 is %+v", h)
	}
	stop()

	for what, c := range map[string]struct{ metadata, ca, text string }{
		"a copy of a machine":    {first, ca, "dctl token create --host web-1"},
		"an instance of long":    {document("i-00000002", time.Now().Add(-time.Hour)), ca, "ec2.within"},
		"the CA of another":      {document("i-00000003", time.Now()), strings.Repeat("0", 32), "shows another CA"},
		"not on an EC2 instance": {"http://127.0.0.1:1", ca, "read the zone of this EC2 instance"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := w.dagent(ctx, c.metadata, t.TempDir(), "--name", "web-9", "--ca", c.ca)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		err := w.fleet.Run(cmd)
		cancel()
		if err == nil || !strings.Contains(out.String(), c.text) {
			t.Errorf("%s: %v\n%s", what, err, &out)
		}
	}
	var all struct {
		Hosts []host `json:"hosts"`
	}
	if err := json.Unmarshal([]byte(w.must("hosts", "list", "--output", "json")), &all); err != nil ||
		len(all.Hosts) != 1 {
		t.Errorf("%d hosts, %v", len(all.Hosts), err)
	}
}

// issuer is the hash of the CA that issues.
func (w *world) issuer() string {
	w.Helper()
	var out struct {
		Issues string `json:"issues"`
	}
	if err := json.Unmarshal([]byte(w.must("cluster", "ca", "status", "--output", "json")), &out); err != nil {
		w.Fatal(err)
	}
	return out.Issues
}

type host struct {
	State  string            `json:"state"`
	Zone   string            `json:"zone"`
	Labels map[string]string `json:"labels"`

	Differences []string `json:"differences"`
}

// host is what the cluster says of a host.
func (w *world) host(name string) (h host) {
	w.Helper()
	out, code := w.dctl("hosts", "show", name, "--output", "json")
	if code == 0 {
		if err := json.Unmarshal([]byte(out), &h); err != nil {
			w.Fatal(err)
		}
	}
	return h
}

// dagent is the agent of an instance with this metadata service.
func (w *world) dagent(ctx context.Context, metadata, root string, args ...string) *exec.Cmd {
	var agents []string
	for _, c := range w.fleet.Coordinators() {
		agents = append(agents, c.Agents)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "dagent"), append([]string{
		"--join-method", "ec2", "--coordinator", strings.Join(agents, ","), "--root", root,
		"--install-root", filepath.Join(root, "fs"), "--gossip-bind", "127.0.0.1:0", "--cgroup", "off",
	}, args...)...)
	cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_SERVICE_ENDPOINT="+metadata)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}

// instance runs an agent until it is stopped.
func (w *world) instance(metadata, root string, args ...string) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	cmd := w.dagent(ctx, metadata, root, args...)
	ended := make(chan error, 1)
	go func() { ended <- w.fleet.Run(cmd) }()
	return func() {
		w.Helper()
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			w.Errorf("dagent ended: %v", err)
		}
	}
}
