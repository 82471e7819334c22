package hooks

import (
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hostFiles is a login whose files lie in a folder of the test.
func hostFiles(t *testing.T, files map[string]string) login {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return login{
		environment: []string{filepath.Join(dir, "environment"), filepath.Join(dir, "locale")},
		passwd:      filepath.Join(dir, "passwd"), limits: filepath.Join(dir, "limits.conf"),
	}
}

func TestLoginEnvironment(t *testing.T) {
	l := hostFiles(t, map[string]string{
		"environment": "# comment\nDATABASE_URL=postgres://db\nexport QUOTED=\"a b\"\nPATH='/opt/bin:/bin'\nnonsense\n HOME = /evil\n",
		"locale":      "LANG=de_DE.UTF-8\n",
		"passwd":      "deploy:x:1001:1001::/home/deploy:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
	})
	u := &user.User{Uid: "1001", Gid: "1001", Username: "deploy", HomeDir: "/home/deploy"}
	got := Env{Root: "/r", DeploymentID: "d-1", Extra: map[string]string{"QUOTED": "agent"}}.variables(u, &l)
	for _, want := range []string{
		"DATABASE_URL=postgres://db", "QUOTED=agent", "PATH=/opt/bin:/bin", "LANG=de_DE.UTF-8", "SHELL=/bin/bash", "HOME=/home/deploy",
		"USER=deploy", "DEPLOYMENT_ID=d-1",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if s := l.shell("nobody"); s != "/bin/sh" {
		t.Errorf("the shell of nobody is %s", s)
	}
	if got := (Env{}).variables(u, nil); slices.ContainsFunc(got,
		func(v string) bool { return strings.HasPrefix(v, "DATABASE_URL") }) {
		t.Errorf("without runas: %q", got)
	}
}

func TestLoginLimits(t *testing.T) {
	l := hostFiles(t, map[string]string{
		"limits.conf":      "* soft nofile 1000 # all\n* hard nofile 2000\nnobody - core unlimited\n@nogroup soft nproc 77\n1:99999 hard nproc 88\n* soft nproc 5\n",
		"limits.d/20.conf": "nobody soft nofile 1500\n* soft nofile 7\nroot soft nofile 9\n* soft stack x\n* soft cpu 2\nbroken line\n",
	})
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	got := l.limitsOf(nobody)
	want := map[int]limitPair{
		unix.RLIMIT_NOFILE: {1500, 2000}, unix.RLIMIT_CORE: {infinity, infinity}, unix.RLIMIT_NPROC: {
			77,
			88,
		}, unix.RLIMIT_CPU: {120, -1},
	}
	if !maps.Equal(got, want) {
		t.Errorf("nobody: %v, want %v", got, want)
	}
	root := &user.User{Uid: "0", Gid: "0", Username: "root"}
	if got := l.limitsOf(root); !maps.Equal(got, map[int]limitPair{unix.RLIMIT_NOFILE: {9, -1}}) {
		t.Errorf("root: %v", got)
	}
	if got := (limitPair{-1, infinity}).over(syscall.Rlimit{Cur: 5, Max: 6}); got.Cur != 5 ||
		got.Max != unix.RLIM_INFINITY {
		t.Errorf("%+v", got)
	}
	if got := (limitPair{10, 8}).over(syscall.Rlimit{Cur: 5, Max: 6}); got.Cur != 8 || got.Max != 8 {
		t.Errorf("%+v", got)
	}
}

// SetLogin lets a test say what the host gives whoever changes to a user.
func SetLogin(r *Runner, environment, limits string) {
	r.login.environment, r.login.limits = []string{environment}, limits
}
