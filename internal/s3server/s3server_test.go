package s3server

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	MaybeServe()
	if os.Getenv("S3SERVER_TEST_PARENT") != "" {
		parent()
	}
	os.Exit(m.Run())
}

// parent starts a server, prints its process id and blocks until killed.
func parent() {
	s, err := Start(context.Background(), Options{Dir: os.Getenv("S3SERVER_TEST_PARENT")})
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(strconv.Itoa(s.cmd.Process.Pid) + "\n")
	select {}
}

func TestServesAndStops(t *testing.T) {
	s, err := Start(t.Context(), Options{Dir: t.TempDir(), Buckets: []string{"first"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateBucket("second"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.URL + "/first")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Fatalf("a request without credentials got %s, want 403", resp.Status)
	}
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := http.Get(s.URL); err == nil {
		t.Fatal("the server still answers after Stop")
	}
}

func TestRefusesOtherInterfaces(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:9000", "192.0.2.1:9000", "localhost:9000", "nonsense"} {
		if _, err := Start(t.Context(), Options{Dir: t.TempDir(), Addr: addr}); err == nil ||
			!strings.Contains(err.Error(), addr) {
			t.Errorf("address %s: %v, want a refusal that names it", addr, err)
		}
	}
}

func TestStartNamesWhatTheChildSaid(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Dir: file}); err == nil ||
		!strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file as directory: %v", err)
	}
}

func TestBucketNames(t *testing.T) {
	for _, name := range []string{"", "..", "a/b", "UP", "-a-"} {
		if err := makeBucket(t.TempDir(), name); err == nil {
			t.Errorf("bucket %q was created", name)
		}
	}
}

// TestDiesWithItsParent kills a process that has started a server, the hard
// way, and waits for the server's end.
func TestDiesWithItsParent(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "S3SERVER_TEST_PARENT="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPid(t, out)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	awaitGone(t, pid)
}
