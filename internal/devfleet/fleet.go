package devfleet

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	"github.com/groundswell/groundswell/internal/s3server"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Options of Start.
type Options struct {
	Dir          string // an existing folder, emptied by Stop unless Keep
	Bin          string // folder of dcoord and dagent
	Coordinators int
	Agents       int
	Zones        int
	Keep         bool
	Config       string        // coordinator.yaml of all coordinators; "" is none
	Profiles     bool          // coordinators serve metrics and profiles, at Coordinator.Debug
	Host         func(h *Host) // may change a host before its agent starts
}

// Host is one agent of the fleet.
type Host struct {
	Name, Zone string
	Port       int               // for its application
	Dir        string            // root, installRoot and application state lie below
	Labels     map[string]string // beside role and env
	process    *process
}

// Fleet is a running fleet. Its methods are for one goroutine, but Stop.
type Fleet struct {
	o       Options
	proc    *processes
	s3      *s3server.Server
	coords  []*Coordinator
	Hosts   []*Host
	Control controlv1.ControlServiceClient
	conn    *grpc.ClientConn
	spent   time.Duration // CPU time of coordinators that were killed
}

// Coordinator is one coordinator of the fleet.
type Coordinator struct {
	Name, API, Agents string
	Debug             string // address of profiles, "none" without
	args              []string
	process           *process
}

// Bucket holds the revisions of the demo.
const Bucket = "releases"

// Start starts the servers and agents, in order, and waits until every agent
// is connected. On an error what was started is left for Stop.
func Start(ctx context.Context, o Options, say func(format string, args ...any)) (*Fleet, error) {
	f := &Fleet{o: o}
	for _, d := range []string{"logs", "s3", "hosts"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, d), 0o755); err != nil {
			return f, fmt.Errorf("create %s: %w", d, err)
		}
	}
	var err error
	if f.proc, err = newProcesses(o.Dir); err != nil {
		return f, err
	}
	say("starting S3 server")
	if err := f.startS3(ctx); err != nil {
		return f, err
	}
	say("starting %d coordinators", o.Coordinators)
	if err := f.startCoordinators(ctx); err != nil {
		return f, err
	}
	say("starting %d agents in %d zones", o.Agents, o.Zones)
	return f, f.startAgents(ctx)
}

func secret() string {
	var b [12]byte
	_, _ = crand.Read(b[:]) // crypto/rand never fails
	return hex.EncodeToString(b[:])
}

func (f *Fleet) startS3(ctx context.Context) (err error) {
	log, err := os.Create(filepath.Join(f.o.Dir, "logs", "s3.log"))
	if err != nil {
		return fmt.Errorf("open log of the S3 server: %w", err)
	}
	defer log.Close()
	o := s3server.Options{
		Dir: filepath.Join(f.o.Dir, "s3"), AccessKey: "dev" + secret(), SecretKey: secret(), Buckets: []string{Bucket},
		Output: log,
	}
	if f.s3 != nil { // again, as it was
		o.AccessKey, o.SecretKey, o.Addr = f.s3.AccessKey, f.s3.SecretKey, strings.TrimPrefix(f.s3.URL, "http://")
	}
	s3, err := s3server.Start(ctx, o)
	if err == nil {
		f.s3 = s3
	}
	return err
}

// StartS3 starts the S3 server again after StopS3, on the same data and address.
func (f *Fleet) StartS3(ctx context.Context) error { return f.startS3(ctx) }

// Dir is the folder of everything.
func (f *Fleet) Dir() string { return f.o.Dir }

// Store is the URL of the demo's artifacts.
func (f *Fleet) Store(app string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=%s", Bucket, app, f.s3.URL, s3server.Region)
}

// Env is the environment in which dctl works with this fleet.
func (f *Fleet) Env() []string {
	return append(f.StoreEnv(), "DCTL_COORDINATOR="+strings.Join(f.Addresses(), ","),
		"DCTL_CREDENTIALS="+f.Credentials())
}

// StoreEnv is the environment in which tools reach the artifact store.
func (f *Fleet) StoreEnv() []string { return f.s3.Env() }

// Credentials is the folder of the operator's credential.
func (f *Fleet) Credentials() string { return filepath.Join(f.o.Dir, "c1", "operator") }

// Addresses are the coordinators' API addresses.
func (f *Fleet) Addresses() []string {
	var out []string
	for _, c := range f.coords {
		out = append(out, c.API)
	}
	return out
}

// ports takes n free loopback ports. Another process may take one meanwhile;
// then the start that needs it fails and says so.
func ports(n int) ([]int, error) {
	var out []int
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close() // it was open a moment ago
		}
	}()
	for range n {
		var l net.Listener
		var err error
		for range 100 { // below those that connections take, which would take one before its owner does
			if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.N(17000))); err == nil {
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		open = append(open, l)
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

func (f *Fleet) startCoordinators(ctx context.Context) error {
	free, err := ports(5 * f.o.Coordinators)
	if err != nil {
		return err
	}
	for i := range f.o.Coordinators {
		at := func(j int) string { return fmt.Sprintf("127.0.0.1:%d", free[5*i+j]) }
		c := &Coordinator{Name: fmt.Sprintf("c%d", i+1), API: at(0), Agents: at(1), Debug: "none"}
		if f.o.Profiles {
			c.Debug = at(4)
		}
		c.args = []string{
			filepath.Join(f.o.Bin, "dcoord"), "--name", c.Name, "--dir", filepath.Join(f.o.Dir, c.Name),
			"--api", c.API, "--agents", c.Agents, "--raft", at(2), "--gossip", at(3), "--debug", c.Debug,
		}
		if f.o.Config != "" {
			c.args = append(c.args, "--config", f.o.Config)
		}
		extra, token := []string{"--bootstrap"}, ""
		if i > 0 {
			if token, err = f.Token(ctx, "coordinator", 1); err != nil {
				return err
			}
			extra = []string{"--join", f.coords[0].API, "--join-token-file", "-"}
		}
		if err := f.runCoordinator(ctx, c, token, extra...); err != nil {
			return err
		}
		f.coords = append(f.coords, c)
		if i == 0 {
			if err := f.connect(); err != nil {
				return err
			}
		}
	}
	if err := f.conn.Close(); err != nil {
		return err
	}
	return f.connect() // now with all addresses
}

// runCoordinator starts a coordinator and waits for its word that it serves.
func (f *Fleet) runCoordinator(ctx context.Context, c *Coordinator, stdin string, extra ...string) (err error) {
	c.process, err = f.proc.start(c.Name, f.s3.Env(), stdin, append(append([]string{}, c.args...), extra...)...)
	if err != nil {
		return err
	}
	return f.until(ctx, 20*time.Second, c.process, c.Name+" serves", func() (bool, error) {
		b, err := os.ReadFile(c.process.log)
		return strings.Contains(string(b), `"event":"ready"`), err
	})
}

// until polls what has no signal: another process's state.
func (f *Fleet) until(ctx context.Context, limit time.Duration, pr *process, what string,
	ok func() (bool, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		done, err := ok()
		if done {
			return nil
		}
		if pr != nil && !pr.alive() {
			return fmt.Errorf("%s ended before %s: %w\n%s", pr.name, what, pr.err, pr.tail())
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waited for: %s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}

func (f *Fleet) connect() error {
	cred, err := identity.Load(f.Credentials())
	if err != nil {
		return err
	}
	if f.conn, err = rpc.Dial(f.Addresses(), cred.Client()); err != nil {
		return err
	}
	f.Control = controlv1.NewControlServiceClient(f.conn)
	return nil
}

// Reconnect shows the cluster the operator's credential as it lies on the disk now.
func (f *Fleet) Reconnect() error {
	_ = f.conn.Close() // it was of before
	return f.connect()
}

// Coordinators returns the coordinators, running or killed.
func (f *Fleet) Coordinators() []*Coordinator { return f.coords }

// Token makes a join token.
func (f *Fleet) Token(ctx context.Context, role string, uses int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := f.Control.CreateToken(ctx, &controlv1.CreateTokenRequest{Role: role, Uses: int32(uses)})
	if err != nil {
		return "", fmt.Errorf("make a token for an %s: %s", role, rpc.Text(err))
	}
	return out.Token, nil
}

func (f *Fleet) startAgents(ctx context.Context) error { return f.AddAgents(ctx, f.o.Agents) }

// AddAgents starts n more agents with names and zones of their own, and waits
// until they are connected.
func (f *Fleet) AddAgents(ctx context.Context, n int) error {
	free, err := ports(n)
	if err != nil {
		return err
	}
	token, err := f.Token(ctx, "agent", n)
	if err != nil {
		return err
	}
	have := len(f.Hosts)
	for i := have; i < have+n; i++ {
		zone := string(rune('a' + i%f.o.Zones))
		h := &Host{
			Name: fmt.Sprintf("www-%02d", i+1), Zone: "eu-1" + zone, Port: free[i-have],
			Labels: map[string]string{},
		}
		h.Dir = filepath.Join(f.o.Dir, "hosts", h.Name)
		if f.o.Host != nil {
			f.o.Host(h)
		}
		if err := f.runAgent(h, token); err != nil {
			return err
		}
		f.Hosts = append(f.Hosts, h)
	}
	return f.WaitConnected(ctx, len(f.Hosts))
}

// runAgent starts the agent of a host; the token is needed once.
func (f *Fleet) runAgent(h *Host, token string) (err error) {
	if err := os.MkdirAll(filepath.Join(h.Dir, "app"), 0o755); err != nil {
		return fmt.Errorf("create folder of %s: %w", h.Name, err)
	}
	args := []string{
		filepath.Join(f.o.Bin, "dagent"), "--name", h.Name, "--zone", h.Zone, "--root", filepath.Join(h.Dir, "root"),
		"--install-root", filepath.Join(h.Dir, "fs"), "--gossip-bind", "127.0.0.1:0", "--join-token-file", "-",
		"--label", "role=web", "--label", "env=prod",
		"--env", fmt.Sprintf("PORT=%d", h.Port), "--env", "HOST_NAME=" + h.Name, "--env", "ZONE=" + h.Zone,
		"--env", "WWW_STATE=" + filepath.Join(h.Dir, "app"), "--compare-every", "5s",
	}
	for _, c := range f.coords {
		args = append(args, "--coordinator", c.Agents)
	}
	for k, v := range h.Labels {
		args = append(args, "--label", k+"="+v)
	}
	h.process, err = f.proc.start("agent-"+h.Name, nil, token, args...)
	return err
}

// WaitConnected waits until n hosts are connected, by stream and by gossip.
func (f *Fleet) WaitConnected(ctx context.Context, n int) error {
	return f.until(ctx, 30*time.Second, nil, fmt.Sprintf("%d hosts connected", n), func() (bool, error) {
		hosts, err := f.Control.ListHosts(ctx, &controlv1.ListHostsRequest{})
		if err != nil {
			return false, err
		}
		connected := 0
		for _, h := range hosts.Hosts {
			if h.State == "connected" {
				connected++
			}
		}
		return connected >= n, fmt.Errorf("%d are", connected)
	})
}

// Leader returns the coordinator that leads.
func (f *Fleet) Leader(ctx context.Context) (*Coordinator, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := f.Control.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask who leads: %s", rpc.Text(err))
	}
	for _, c := range f.coords {
		if c.Name == s.Leader {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the leader %q is none of ours", s.Leader)
}

// KillCoordinator ends a coordinator as a crash would.
func (f *Fleet) KillCoordinator(c *Coordinator) error {
	if err := c.process.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", c.Name, err)
	}
	<-c.process.done
	f.spent += c.process.cmd.ProcessState.UserTime() + c.process.cmd.ProcessState.SystemTime()
	return nil
}

// Signal sends a coordinator a signal, as to stop it for a while.
func (f *Fleet) Signal(c *Coordinator, s syscall.Signal) error {
	if err := c.process.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s to %s: %w", s, c.Name, err)
	}
	return nil
}

// SignalAgent is Signal for an agent.
func (f *Fleet) SignalAgent(h *Host, s syscall.Signal) error {
	if err := h.process.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s to %s: %w", s, h.Name, err)
	}
	return nil
}

// Ended waits until a coordinator has ended, and returns its exit code.
func (f *Fleet) Ended(ctx context.Context, c *Coordinator) (code int, err error) {
	select {
	case <-c.process.done:
		return c.process.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the end of %s: %w", c.Name, ctx.Err())
	}
}

// RestartCoordinator starts a coordinator again on its old state.
func (f *Fleet) RestartCoordinator(ctx context.Context, c *Coordinator) error {
	if err := os.Truncate(c.process.log, 0); err != nil {
		return fmt.Errorf("empty log of %s: %w", c.Name, err)
	}
	return f.runCoordinator(ctx, c, "")
}

// KillAgent ends an agent as a crash would; its application lives on.
func (f *Fleet) KillAgent(h *Host) error {
	if err := h.process.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill agent of %s: %w", h.Name, err)
	}
	<-h.process.done
	return nil
}

// RestartAgent starts an agent again on its old state, without a token.
func (f *Fleet) RestartAgent(h *Host) error { return f.runAgent(h, "") }

// StopS3 ends the S3 server.
func (f *Fleet) StopS3() error { return f.s3.Stop() }

// RSS returns the resident memory of every coordinator and agent, in bytes.
func (f *Fleet) RSS() (coordinators, agents []int64) {
	for _, c := range f.coords {
		coordinators = append(coordinators, rss(c.process.cmd.Process.Pid))
	}
	for _, h := range f.Hosts {
		agents = append(agents, rss(h.process.cmd.Process.Pid))
	}
	return coordinators, agents
}

func rss(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kb int64
			_, _ = fmt.Sscan(strings.TrimSpace(v), &kb) // the kernel writes a number
			return kb << 10
		}
	}
	return 0
}

// Stop ends everything and removes the folder, unless it is to be kept. It
// returns what would not end or go.
func (f *Fleet) Stop() error {
	var errs []error
	if f.conn != nil {
		errs = append(errs, f.conn.Close())
	}
	if f.s3 != nil {
		errs = append(errs, f.s3.Stop())
	}
	if f.proc != nil {
		errs = append(errs, f.proc.end())
	}
	if !f.o.Keep {
		errs = append(errs, os.RemoveAll(f.o.Dir))
	}
	return errors.Join(errs...)
}

// CPU is the CPU time that the coordinators have used, killed ones included.
func (f *Fleet) CPU() time.Duration {
	sum := f.spent
	for _, c := range f.coords {
		if c.process.alive() {
			sum += cpu(c.process.cmd.Process.Pid)
		}
	}
	return sum
}

func cpu(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var user, system int64
	_, _ = fmt.Sscan(fields[11], &user) // the kernel writes numbers
	_, _ = fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// Run runs a command and waits for it. While a fleet runs, every other child
// of this process must be started here: the fleet reaps what it does not know.
func (f *Fleet) Run(cmd *exec.Cmd) error { return f.proc.run(cmd) }
