package hooks_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/hooks"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	agentMain()
	os.Exit(m.Run())
}

// agentMain makes the test binary a small agent that runs one script and is
// there to be killed.
func agentMain() {
	dir, root := os.Getenv("TEST_AGENT_DIR"), os.Getenv("TEST_AGENT_ROOT")
	if dir == "" {
		return
	}
	r, err := hooks.NewRunner(hooks.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	res := r.Run(context.Background(), hooks.Script{Location: "a.sh"},
		hooks.Env{ID: "run", Root: root, Event: "BeforeInstall"})
	fmt.Println(res.Code)
	os.Exit(0)
}

// host is a revision folder and a runner over a temporary folder.
type host struct {
	*testing.T
	root   string
	dir    string
	runner *hooks.Runner
	n      int
}

func newHost(t *testing.T, o hooks.Options) *host {
	t.Helper()
	h := &host{T: t, root: t.TempDir(), dir: t.TempDir()}
	for _, d := range []string{h.root, h.dir} { // readable for runas
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(filepath.Dir(d), 0o755)
	}
	o.Dir = h.dir
	r, err := hooks.NewRunner(o)
	if err != nil {
		t.Fatal(err)
	}
	h.runner = r
	return h
}

func (h *host) write(name, body string) string {
	h.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		h.Fatal(err)
	}
	return path
}

func (h *host) env(id string) hooks.Env {
	return hooks.Env{
		ID: id, Root: h.root, Event: "BeforeInstall", Application: "www",
		DeploymentID: "d-1", DeploymentGroup: "prod", DeploymentGroupID: "g-1",
	}
}

// run runs body as a.sh.
func (h *host) run(s hooks.Script, body string) hooks.Result {
	h.Helper()
	if s.Location == "" {
		s.Location = "a.sh"
	}
	if body != "" {
		h.write("a.sh", body)
	}
	h.n++
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return h.runner.Run(ctx, s, h.env(fmt.Sprintf("r%d", h.n)))
}

func (h *host) log(r hooks.Result) string {
	h.Helper()
	var b strings.Builder
	for off := int64(0); ; {
		data, next, err := hooks.ReadLog(r.Log, off, 1<<20)
		if err != nil {
			h.Fatal(err)
		}
		if len(data) == 0 {
			return b.String()
		}
		b.Write(data)
		off = next
	}
}

// eventually polls until ok or 10 s have passed.
func (h *host) eventually(what string, ok func() bool) {
	h.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.Fatalf("never came true: %s", what)
		}
	}
}

func (h *host) pid(file string) int {
	h.Helper()
	var pid int
	h.eventually("a pid in "+file, func() bool {
		data, _ := os.ReadFile(filepath.Join(h.root, file))
		_, err := fmt.Sscan(string(data), &pid)
		return err == nil && pid > 0
	})
	return pid
}

func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}
