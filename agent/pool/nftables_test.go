package pool_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent/pool"
)

// addressVariable makes this program a client: it connects, says how that went, and
// sends each line that it reads to the server and what comes back to its output.
const addressVariable = "POOL_TEST_DIAL"

func TestMain(m *testing.M) {
	if address := os.Getenv(addressVariable); address != "" {
		dial(address)
		return
	}
	os.Exit(m.Run())
}

func dial(address string) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("connected")
	answers := bufio.NewReader(conn)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Fprintln(conn, lines.Text())
		answer, err := answers.ReadString('\n')
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(answer)
	}
}

// client is a connection from another machine.
type client struct {
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func (c *client) line(t *testing.T) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the client says nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

func (c *client) close() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// TestPort: two network namespaces are two machines. New connections from the other one
// are refused while a port is closed, those that there are go on, and are waited for.
func TestPort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces and rules")
	}
	const inside = "POOL_TEST_INSIDE"
	if at := os.Getenv(inside); at != "" {
		testPort(t, at)
		return
	}
	here, there := fmt.Sprintf("gwpool%dh", os.Getpid()), fmt.Sprintf("gwpool%dt", os.Getpid())
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	for _, ns := range []string{here, there} {
		run("ip", "netns", "add", ns)
		t.Cleanup(func() { run("ip", "netns", "del", ns) })
		run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	run("ip", "-n", here, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", there)
	for ns, end := range map[string]string{here: "v0 10.99.0.1/24", there: "v1 10.99.0.2/24"} {
		name, addr, _ := strings.Cut(end, " ")
		run("ip", "-n", ns, "addr", "add", addr, "dev", name)
		run("ip", "-n", ns, "link", "set", name, "up")
	}
	cmd := exec.Command("ip", "netns", "exec", here, self(t), "-test.run=^TestPort$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+there)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPort") {
		t.Error(err)
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func testPort(t *testing.T, there string) {
	serve := func() (port int) {
		l, err := net.Listen("tcp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer conn.Close(); _, _ = io.Copy(conn, conn) }()
			}
		}()
		return l.Addr().(*net.TCPAddr).Port
	}
	dialled := func(port int) *client {
		cmd := exec.Command("ip", "netns", "exec", there, self(t))
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=10.99.0.1:%d", addressVariable, port))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c := &client{in, bufio.NewReader(out), cmd}
		t.Cleanup(c.close)
		return c
	}
	says := func(c *client, want string) {
		t.Helper()
		if got := c.line(t); !strings.Contains(got, want) {
			t.Errorf("the client says %q, want %q", got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	number, other := serve(), serve()
	port, second := pool.Port{Number: number}, pool.Port{Number: other}
	must(port.Open(ctx)) // before anything is there
	old := dialled(number)
	says(old, "connected")
	must(port.Close(ctx))
	must(port.Close(ctx))
	must(second.Close(ctx))
	says(dialled(number), "connection refused")
	says(dialled(other), "connection refused")
	fmt.Fprintln(old.in, "still here")
	says(old, "still here")
	local, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Errorf("the host's own probe: %v", err)
	} else {
		defer local.Close()
	}

	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	said := ""
	if left, err := port.Drained(short, func(text string) { said = text }); left != 1 || err != nil || said != "1 connections" {
		t.Errorf("%d connections are left, told %q: %v", left, said, err)
	}
	old.close()
	if left, err := port.Drained(ctx, func(string) {}); left != 0 || err != nil {
		t.Errorf("%d connections are left: %v", left, err)
	}

	must(port.Open(ctx))
	must(port.Open(ctx))
	says(dialled(number), "connected")
	says(dialled(other), "connection refused") // another application's
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	says(dialled(other), "connected")
	must(second.Close(ctx)) // asked again, as after a reboot
	says(dialled(other), "connection refused")
	must(second.Open(ctx))
	says(dialled(other), "connected")
}
