// Package haproxytest runs HAProxy in tests.
package haproxytest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Balancer is one HAProxy process with one backend, www.
type Balancer struct {
	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	changes []string // old, new, …

	Address string // where it serves
	API     string // its runtime API
}

// New returns a balancer that does not run yet. A test is skipped where HAProxy is not
// installed.
func New(t testing.TB) *Balancer {
	t.Helper()
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip("haproxy is not installed")
	}
	return &Balancer{t: t, dir: t.TempDir(), Address: free(t), API: free(t)}
}

// Change replaces a text in the configuration that Serve writes.
func (b *Balancer) Change(old, new string) { b.changes = append(b.changes, old, new) }

// Serve runs the balancer before servers, each written as "web-1 127.0.0.1:8080".
func (b *Balancer) Serve(servers ...string) {
	b.t.Helper()
	config := fmt.Sprintf(`global
  stats socket ipv4@%s level admin
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  retries 0
frontend f
  bind %s
  default_backend www
backend www
  option httpchk GET /
  http-check expect status 200
  default-server check inter 100ms fastinter 50ms rise 2 fall 2
`, b.API, b.Address)
	for _, s := range servers {
		config += "  server " + s + "\n"
	}
	config = strings.NewReplacer(b.changes...).Replace(config)
	if err := os.WriteFile(b.file(), []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.Begin()
	b.t.Cleanup(b.Kill)
}

func (b *Balancer) file() string { return filepath.Join(b.dir, "haproxy.cfg") }

// Begin starts the process, and returns once it answers.
func (b *Balancer) Begin() {
	b.t.Helper()
	b.cmd = exec.Command("haproxy", "-db", "-f", b.file())
	var out strings.Builder
	b.cmd.Stdout, b.cmd.Stderr = &out, &out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", b.API)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			_ = b.cmd.Process.Kill()
			_ = b.cmd.Wait()
			b.t.Fatalf("haproxy does not answer: %v\n%s", err, &out)
		}
	}
}

// Ready counts the servers that are up and get traffic.
func (b *Balancer) Ready() (n int) {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.API)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintln(conn, "show stat www 4 -1")
	out, _ := io.ReadAll(conn)
	for l := range strings.Lines(string(out)) {
		if f := strings.Split(l, ","); len(f) > 17 && f[17] == "UP" {
			n++
		}
	}
	return n
}

// Kill ends the process, as a crash does.
func (b *Balancer) Kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// Restart is a process that knows nothing of what the former was told, as after a
// reload.
func (b *Balancer) Restart() {
	b.t.Helper()
	b.Kill()
	b.Begin()
}

func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
