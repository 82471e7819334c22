package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent"
)

// The unit is one that systemd takes without a word.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	data, err := os.ReadFile("../../contrib/systemd/dagent.service")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"KillMode=process", "Type=notify", "WatchdogSec="} {
		if !strings.Contains(string(data), "\n"+want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	unit := filepath.Join(t.TempDir(), "dagent.service")
	text := strings.ReplaceAll(string(data), "/usr/local/bin/dagent", self)
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	var ours []string // it also tells what it thinks of the host's own units
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "dagent") {
			ours = append(ours, line)
		}
	}
	if len(ours) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, ours)
	}
	if err := os.WriteFile(unit, []byte(text+"\n[Service]\nNoSuchKey=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command("systemd-analyze", "verify", "--man=no",
		unit).CombinedOutput(); !strings.Contains(string(out), "NoSuchKey") {
		t.Errorf("the check finds nothing: %s", out)
	}
}

// Readiness reaches the service manager's socket.
func TestReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	var out bytes.Buffer
	if err := ready(&out, "json", agent.Status{Host: "h-1", Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" || !strings.Contains(out.String(), `"event":"ready"`) {
		t.Errorf("told %q (%v), printed %s", buf[:n], err, out.String())
	}
	out.Reset()
	if err := ready(&out, "text", agent.Status{Host: "h-1", Name: "web-1"}); err != nil ||
		out.String() != "ready: host web-1, id h-1, 0 targets\n" {
		t.Errorf("for people: %s (%v)", out.String(), err)
	}
}

// The example file is right, and states every key there is.
func TestExampleFile(t *testing.T) {
	data, err := os.ReadFile("../../contrib/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "# "); ok && strings.Contains(strings.SplitN(rest, " ", 2)[0], ":") &&
			!strings.HasPrefix(rest, "/") {
			line = rest
		}
		all.WriteString(line)
	}
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var s settings
	if err := readFile(file, &s); err != nil {
		t.Fatalf("%v\n%s", err, all.String())
	}
	if _, err := s.options(); err != nil {
		t.Fatal(err)
	}
	for f := range reflect.TypeFor[settings]().Fields() {
		if key := f.Tag.Get("yaml"); key != "" && !strings.Contains("\n"+all.String(), "\n"+key+":") {
			t.Errorf("contrib/agent.yaml does not show %s", key)
		}
	}
}

// Every key with a wrong value is one line that names the place and the key.
func TestEveryWrongKey(t *testing.T) {
	for f := range reflect.TypeFor[settings]().Fields() {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		wrong := "[[x]]"
		if f.Type.Kind() == reflect.Slice {
			wrong = "{a: b}"
		}
		file := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(file, []byte("# first line\n"+key+": "+wrong+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		code := run(t.Context(), []string{"--config", file, "--name", "w"}, &out, &out)
		first, _, _ := strings.Cut(out.String(), "\n")
		if code != 2 || !strings.Contains(first, "agent.yaml:2:") || !strings.Contains(first, key) {
			t.Errorf("%s: exit %d, %q", key, code, first)
		}
		typo := key[:len(key)-1] + "x" + key[len(key)-1:]
		if err := os.WriteFile(file, []byte(typo+": x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if code := run(t.Context(), []string{"--config", file, "--name", "w"}, &out, &out); code != 2 ||
			!strings.Contains(out.String(), "agent.yaml:1:1") || !strings.Contains(out.String(), key) {
			t.Errorf("%s: exit %d, %s", typo, code, out.String())
		}
	}
}

// Tags of an EC2 instance are labels, below those that are stated.
func TestFromEC2Tags(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			fmt.Fprint(w, "token")
		case "/latest/meta-data/tags/instance":
			fmt.Fprint(w, "role\nteam")
		case "/latest/meta-data/tags/instance/role":
			fmt.Fprint(w, "db")
		case "/latest/meta-data/tags/instance/team":
			fmt.Fprint(w, "blue")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s.URL)
	l := newLine()
	if err := l.flags.Parse([]string{
		"--from-ec2-tags", "--label", "role=web", "--rlimit", "nofile=9",
		"--no-new-privileges",
	}); err != nil {
		t.Fatal(err)
	}
	set, err := l.load(func(string) (string, bool) { return "", false })
	if err != nil || !set.FromEC2Tags {
		t.Fatalf("%+v, %v", set, err)
	}
	o, err := set.options()
	if err != nil || o.Confine.Rlimits["nofile"] != 9 || !o.Confine.NoNewPrivileges {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := addTags(t.Context(), &o); err != nil || o.Labels["team"] != "blue" || o.Labels["role"] != "web" {
		t.Errorf("labels %v, %v", o.Labels, err)
	}
}

func TestDoctor(t *testing.T) {
	root := t.TempDir()
	var out bytes.Buffer
	code := run(t.Context(), []string{"doctor", "--name", "w", "--zone", "a", "--root", root}, &out, &out)
	for _, want := range []string{"ok       state folder", "identity", "not enrolled", "coordinators"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	out.Reset()
	code = run(t.Context(), []string{
		"doctor", "--name", "w", "--zone", "a", "--root", root, "--coordinator",
		"127.0.0.1:1",
	}, &out, &out)
	if code != 1 || !strings.Contains(out.String(), "failed   coordinator") ||
		!strings.Contains(out.String(), "out of reach") {
		t.Errorf("exit %d:\n%s", code, out.String())
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
