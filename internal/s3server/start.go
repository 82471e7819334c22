package s3server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

const healthPath = "/groundswell-health"

// Options say what [Start] starts; zero fields take what their comments say.
type Options struct {
	// Dir keeps the objects. It is required and made absolute.
	Dir string
	// Addr is a loopback address; "" means 127.0.0.1 and a free port.
	Addr string
	// AccessKey and SecretKey are drawn at random if empty.
	AccessKey, SecretKey string
	// Buckets are created before the server starts.
	Buckets []string
	// Output gets what the server prints, if set.
	Output io.Writer
}

// Server is a running child. Its fields are for reading.
type Server struct {
	// URL is the endpoint, "http://127.0.0.1:port".
	URL                  string
	AccessKey, SecretKey string

	dir  string
	cmd  *exec.Cmd
	tail *tail
	done chan struct{} // closed when the child has ended
	stop sync.Once
}

// portTries is how many free ports are tried: another process may take one
// between our looking and the child's listening.
const portTries = 5

// Start starts the server as a child of this process and returns when it
// answers. The child dies with this process, however that ends; ctx bounds
// the start only. The caller calls Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, fmt.Errorf("start S3 server: directory %q is not usable: %w", o.Dir, err)
	}
	c := Config{Dir: dir, Addr: o.Addr, AccessKey: orRandom(o.AccessKey), SecretKey: orRandom(o.SecretKey)}
	for _, b := range o.Buckets {
		if err := makeBucket(dir, b); err != nil {
			return nil, err
		}
	}
	for try := 1; ; try++ {
		s, err := start(ctx, c, o.Output)
		if err == nil {
			return s, nil
		}
		if o.Addr != "" || try == portTries || ctx.Err() != nil {
			return nil, fmt.Errorf("start S3 server: %w", err)
		}
	}
}

func orRandom(key string) string {
	if key != "" {
		return key
	}
	return rand.Text()
}

func start(ctx context.Context, c Config, output io.Writer) (*Server, error) {
	if c.Addr == "" {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		c.Addr = addr
	}
	if err := checkLoopback(c.Addr); err != nil {
		return nil, err
	}
	s := &Server{
		URL: "http://" + c.Addr, AccessKey: c.AccessKey, SecretKey: c.SecretKey,
		dir: c.Dir, tail: &tail{next: output}, done: make(chan struct{}),
	}
	if err := s.spawn(c); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// spawn re-executes this binary.
func (s *Server) spawn(c Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(self)
	s.cmd.Args = []string{self, "s3-server"}
	s.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	s.cmd.Stdout, s.cmd.Stderr = s.tail, s.tail
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go s.mind(started)
	return <-started
}

// mind starts the child and waits for it on one locked thread: the kernel
// sends the death signal when the thread that forked ends, not the process.
func (s *Server) mind(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	err := s.cmd.Start()
	started <- err
	if err == nil {
		_ = s.cmd.Wait() // how it ended shows in ProcessState
	}
}

// poll is how often a starting server is asked; it is ready in about 20 ms.
const poll = 5 * time.Millisecond

func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !s.healthy(ctx) {
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("the child ended (%s): %s", s.cmd.ProcessState, s.tail)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to answer: %w", s.URL, context.Cause(ctx))
		}
	}
	return nil
}

func (s *Server) healthy(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+healthPath, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stopGrace is how long the child may finish its requests.
const stopGrace = 3 * time.Second

// Stop ends the child and waits for it. It may be called more than once and
// concurrently.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-s.done:
		case <-time.After(stopGrace):
			_ = s.cmd.Process.Kill()
		}
	})
	<-s.done
	return nil
}

// Done is closed when the child has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Env returns the variables that make the AWS SDKs and tools, and our own
// stores, use this server.
func (s *Server) Env() []string {
	return append(s.Credentials(), "AWS_ENDPOINT_URL_S3="+s.URL, "AWS_REGION="+Region)
}

// Credentials returns the variables that say who may use this server.
func (s *Server) Credentials() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// CreateBucket creates a bucket; one that exists is no error.
func (s *Server) CreateBucket(name string) error { return makeBucket(s.dir, name) }

// makeBucket needs no S3 client: the server takes every directory of its
// data for a bucket of the root account.
func makeBucket(dir, name string) error {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`).MatchString(name) {
		return fmt.Errorf("create bucket %q: use 3 to 63 of a-z 0-9 - without a dash at either end", name)
	}
	if err := os.MkdirAll(filepath.Join(dir, "data", name), 0o755); err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	return nil
}

func checkLoopback(addr string) error {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("S3 server address %q: want 127.0.0.1:port: %w", addr, err)
	}
	if !a.Addr().IsLoopback() {
		return fmt.Errorf(
			"S3 server address %q: only loopback addresses are served: it is for development and tests", addr)
	}
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// tail keeps the end of the child's output for an error text.
type tail struct {
	mu   sync.Mutex
	last []byte
	next io.Writer
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = slices.Clone(t.last[max(0, len(t.last)-tailBytes):])
	if t.next != nil {
		return t.next.Write(p)
	}
	return len(p), nil
}

// String returns what the child printed last.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
