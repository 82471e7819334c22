package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is machines on one network: network namespaces that a bridge joins, each
// with a /var/lib of its own. The folder in which commands run is the same
// everywhere, as if what a person copies from one to the other were there.
type site struct {
	*testing.T
	dir      string
	prefix   string // of namespaces
	machines map[string]*machine
	followed map[string]bool // "page section"
}

// machine is one host of a site.
type machine struct {
	site    *site
	name    string
	lib     string // what is at its /var/lib/groundswell
	service *exec.Cmd
	again   []string // how its service is started again
	log     *os.File
	ended   chan struct{}
}

// newSite makes the network, or skips the test where nobody may.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		T: t, dir: t.TempDir(), prefix: fmt.Sprintf("gw%d-", os.Getpid()), machines: map[string]*machine{},
		followed: map[string]bool{},
	}
	if out, err := exec.Command("ip", "netns", "add", s.prefix+"net").CombinedOutput(); err != nil {
		t.Skipf("needs network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { s.ip("netns", "del", s.prefix+"net") })
	s.ip("-n", s.prefix+"net", "link", "add", "name", "hub0", "type", "bridge")
	s.ip("-n", s.prefix+"net", "link", "set", "hub0", "up")
	// a person answers yes
	s.write("bin/dctl", "#!/bin/sh\nexec "+filepath.Join(bin, "dctl")+" --yes \"$@\"\n")
	return s
}

func (s *site) ip(args ...string) {
	s.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		s.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (s *site) write(path, text string) {
	s.Helper()
	path = filepath.Join(s.dir, path)
	must(s.T, os.MkdirAll(filepath.Dir(path), 0o755))
	must(s.T, os.WriteFile(path, []byte(text), 0o755))
}

// add puts a machine on the network.
func (s *site) add(name, address string) *machine {
	s.Helper()
	m := &machine{site: s, name: name, lib: filepath.Join(s.dir, "lib", name)}
	must(s.T, os.MkdirAll(m.lib, 0o755))
	net, port := s.prefix+"net", "p"+fmt.Sprint(len(s.machines))
	s.ip("netns", "add", m.ns())
	s.Cleanup(func() {
		m.kill()
		s.ip("netns", "del", m.ns())
	})
	s.ip("-n", net, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", m.ns())
	s.ip("-n", net, "link", "set", port, "master", "hub0", "up")
	s.ip("-n", m.ns(), "addr", "add", address+"/24", "dev", "eth0")
	s.ip("-n", m.ns(), "link", "set", "lo", "up")
	s.ip("-n", m.ns(), "link", "set", "eth0", "up")
	s.machines[name] = m
	return m
}

func (m *machine) ns() string { return m.site.prefix + m.name }

// config is the file of the machine's agent, in the site's folder.
func (m *machine) config() string { return "agent-" + m.name + ".yaml" }

// command is argv on the machine.
func (m *machine) command(ctx context.Context, argv ...string) *exec.Cmd {
	const enter = `mount -t tmpfs none /var/lib && mkdir /var/lib/groundswell &&
mount --bind "$0" /var/lib/groundswell && exec "$@"`
	cmd := exec.CommandContext(ctx, "ip", append([]string{
		"netns", "exec", m.ns(), "sh", "-c", enter, m.lib,
	}, argv...)...)
	home := filepath.Join(m.site.dir, "home", m.name)
	cmd.Dir, cmd.Env = m.site.dir, append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "DCTL_OUTPUT=plain",
		"PATH="+filepath.Join(m.site.dir, "bin")+":"+bin+":"+os.Getenv("PATH"))
	return cmd
}

// try runs a line of shell and returns what it printed.
func (m *machine) try(line string) (string, error) {
	ctx, cancel := context.WithTimeout(m.site.Context(), 2*time.Minute)
	defer cancel()
	cmd := m.command(ctx, "bash", "-c", line)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// run runs a line of shell that has to succeed.
func (m *machine) run(line string) string {
	m.site.Helper()
	out, err := m.try(line)
	m.site.Logf("%s$ %s\n%s", m.name, line, out)
	if err != nil {
		m.site.Fatalf("%s$ %s: %v", m.name, line, err)
	}
	return out
}

// serve starts the machine's service, as its unit would.
func (m *machine) serve(argv ...string) {
	m.site.Helper()
	log, err := os.OpenFile(filepath.Join(m.site.dir, m.name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(m.site.T, err)
	m.log = log
	m.service = m.command(context.Background(), argv...)
	m.service.Stdout, m.service.Stderr = log, log
	must(m.site.T, m.service.Start())
	service, ended := m.service, make(chan struct{})
	m.ended = ended
	go func() {
		defer close(ended)
		_ = service.Wait()
		_ = log.Close()
	}()
	m.again = withoutJoining(argv)
}

// withoutJoining are the arguments of later starts.
func withoutJoining(argv []string) (out []string) {
	for i := 0; i < len(argv); i++ {
		switch argv[i] {
		case "--bootstrap":
		case "--join", "--join-token-file":
			i++
		default:
			out = append(out, argv[i])
		}
	}
	return out
}

// kill ends the machine's service at once.
func (m *machine) kill() { m.end(syscall.SIGKILL) }

func (m *machine) end(signal syscall.Signal) {
	if m.service == nil {
		return
	}
	_ = m.service.Process.Signal(signal)
	select {
	case <-m.ended:
	case <-time.After(30 * time.Second):
		m.site.Errorf("%s: its service does not end", m.name)
		_ = m.service.Process.Kill()
		<-m.ended
	}
	m.service = nil
}

// burn ends the machine and everything on its disk.
func (m *machine) burn() {
	m.site.Helper()
	m.kill()
	must(m.site.T, os.RemoveAll(m.lib))
	must(m.site.T, os.MkdirAll(m.lib, 0o755))
}

var (
	onMachine = regexp.MustCompile(`^# on ([a-z0-9-]+)`)
	repeated  = regexp.MustCompile(`^(.*\S)\s+# repeat until: (.*)$`)
	copied    = regexp.MustCompile(`^scp -r ([a-z0-9-]+):/var/lib/groundswell/(\S+) (\S+)$`)
	unit      = regexp.MustCompile(`^systemctl (start|stop) (dcoord|dagent)$`)
)

// follow does what a section of a page says, line by line, each on the machine
// that the comment above it names. Names and addresses may be replaced: old, new.
func (s *site) follow(page, section string, replace ...string) {
	s.Helper()
	if !slices.Contains(runbooks[page], section) {
		s.Fatalf("%s, %s is not among the runbooks", page, section)
	}
	s.followed[page+" "+section] = true
	began := time.Now()
	at := s.machines["ops"]
	for _, line := range strings.Split(strings.NewReplacer(replace...).Replace(chapter(s.T, page, section)), "\n") {
		line = strings.TrimSpace(line)
		if where := onMachine.FindStringSubmatch(line); where != nil {
			if at = s.machines[where[1]]; at == nil {
				s.Fatalf("%s, %s: there is no machine %s", page, section, where[1])
			}
			continue
		}
		if line != "" {
			at.do(line)
		}
	}
	s.Logf("---- %s: %s, %s: %.1f s", time.Now().Format("05.0"), page, section, time.Since(began).Seconds())
}

func (m *machine) do(line string) {
	m.site.Helper()
	began := time.Now()
	defer func() { m.site.Logf("     %.1f s: %s", time.Since(began).Seconds(), line) }()
	if again := repeated.FindStringSubmatch(line); again != nil {
		m.await(again[1], again[2])
		return
	}
	line, _, _ = strings.Cut(line, "  #")
	line = strings.TrimSpace(line)
	if scp := copied.FindStringSubmatch(line); scp != nil {
		from := filepath.Join(m.site.machines[scp[1]].lib, scp[2])
		(&world{T: m.site.T}).until(20*time.Second, from, func() bool { _, err := os.Stat(from); return err == nil })
		m.run("cp -r " + from + " " + scp[3])
		return
	}
	switch how := unit.FindStringSubmatch(line); {
	case how != nil && how[1] == "stop":
		m.end(syscall.SIGTERM)
	case how != nil:
		m.serve(m.again...)
	case strings.HasPrefix(line, "dcoord --"):
		m.serve(strings.Fields(line)...)
	case strings.HasPrefix(line, "dagent --"): // it reads /etc/groundswell/agent.yaml, which is the machine's own
		m.serve(append(strings.Fields(line), "--config", m.config())...)
	default:
		m.run(line)
	}
}

// await runs a line until it prints a text.
func (m *machine) await(line, text string) {
	m.site.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		out, _ := m.try(line)
		if strings.Contains(strings.Join(strings.Fields(out), " "), text) {
			m.site.Logf("%s$ %s\n%s", m.name, line, out)
			return
		}
		if time.Now().After(end) {
			m.site.Fatalf("%s$ %s: never printed %q, but\n%s", m.name, line, text, out)
		}
	}
}

// chapter returns the shell blocks of a section of a page.
func chapter(t *testing.T, page, section string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	must(t, err)
	_, after, found := strings.Cut(string(b), "\n## "+section+"\n")
	text, _, _ := strings.Cut(after, "\n## ")
	if !found || !strings.Contains(text, "```sh\n") {
		t.Fatalf("%s has no section %q with commands", page, section)
	}
	var all string
	for _, part := range strings.Split(text, "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		all += block
	}
	return all
}

// runbooks are the sections of pages, by page, whose commands
// TestTheLifeOfACluster runs.
var runbooks = map[string][]string{
	"coordinators.md": {
		"Begin", "Add one", "Replace one", "Back up", "When a majority is lost for good", "When no log is left",
	},
	"certificates.md": {"Revoking", "Replace the CA", "Replace the ring's key"},
}

// deployment is one that runs while something is done to the cluster.
type deployment struct {
	s    *site
	out  bytes.Buffer // whole once done has told
	done chan error
}

// deploy begins a deployment on the operator's machine, and returns once it runs.
func (s *site) deploy(rev string) *deployment {
	s.Helper()
	d := &deployment{s: s, done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(s.Context(), 4*time.Minute)
	cmd := s.machines["ops"].command(ctx, "dctl", "deploy", "--app", "hello", "--rev", rev, "--redeploy", "--timeout", "3m")
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	must(s.T, cmd.Start())
	began, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		buf, said := make([]byte, 4096), false
		for {
			n, err := r.Read(buf)
			d.out.Write(buf[:n])
			if !said && (strings.Contains(d.out.String(), "granted") || err != nil) {
				said = true
				close(began)
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer cancel()
		err := cmd.Wait()
		_ = w.Close()
		<-read
		d.done <- err
	}()
	<-began
	return d
}

// ends waits until it has, well.
func (d *deployment) ends() {
	d.s.Helper()
	err := <-d.done
	d.s.Logf("---- %s: the deployment has ended\n%s", time.Now().Format("05.0"), d.out.String())
	if err != nil {
		d.s.Fatalf("the deployment that ran meanwhile: %v", err)
	}
}

// serving returns what hosts of the site serve, each revision once.
func (s *site) serving(hosts ...string) (out []string) {
	for _, h := range hosts {
		found, _ := filepath.Glob(filepath.Join(s.machines[h].lib, "agent", "*", "hello", "current", "revision"))
		serves := "nothing"
		if len(found) == 1 {
			b, err := os.ReadFile(found[0])
			must(s.T, err)
			serves = strings.TrimSpace(string(b))
		}
		out = append(out, serves)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
