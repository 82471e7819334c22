package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// WorkerOptions are what a process of simulated agents is told first.
type WorkerOptions struct {
	Coordinators []string // addresses for agents
	Token        string
	From, To     int // its hosts
	AtOnce       int // hosts that join at the same time
	Shape        Shape
}

// order is a line that a worker reads: "join" its hosts, "drop" every session,
// "log" what was done since the last time; "" asks for its counts.
type order struct {
	Do string `json:"do,omitempty"`
}

// Counts are what a worker answers to every order.
type Counts struct {
	Joined   int64          `json:"joined"` // hosts that were welcomed once
	Up       int64          `json:"up"`     // sessions now
	Targets  int64          `json:"targets"`
	Reports  int64          `json:"reports"`
	Sessions int64          `json:"sessions"` // begun
	Troubles map[string]int `json:"troubles,omitempty"`
	Done     []Done         `json:"done,omitempty"`
}

// Done is one task: from its permit at the host until its result was sent.
type Done struct {
	Deployment string `json:"d"`
	Host       int    `json:"h"`
	Began      int64  `json:"b"` // Unix microseconds
	Ended      int64  `json:"e"`
}

// Worker is a process of simulated agents.
type Worker struct {
	o       WorkerOptions
	joining *tls.Config

	joined, live, targets, reports, sessions atomic.Int64

	mu       sync.Mutex
	cancels  map[*host]context.CancelFunc
	log      []Done
	troubles map[string]int
}

// RunWorker reads its options and then orders, a line of JSON each, and answers
// each with a line. It ends with its input.
func RunWorker(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := yieldCPU(); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	w := &Worker{cancels: map[*host]context.CancelFunc{}, troubles: map[string]int{}}
	if !lines.Scan() {
		return errors.Join(errors.New("no options on standard input"), lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &w.o); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	if err := w.trust(ctx); err != nil {
		return err
	}
	var hosts sync.WaitGroup
	defer hosts.Wait()
	defer cancel()
	answers := json.NewEncoder(out)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("read order %q: %w", lines.Text(), err)
		}
		switch o.Do {
		case "join":
			hosts.Go(func() { w.join(ctx, &hosts) })
		case "drop":
			w.drop()
		}
		if err := answers.Encode(w.counts(o.Do == "log")); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return lines.Err()
}

// yieldCPU lets the coordinators go first: what makes load is not what is measured.
func yieldCPU() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list own threads: %w", err)
	}
	for _, t := range tasks { // a thread that comes has the niceness of who made it
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, niceness) // it may be gone
		}
	}
	return nil
}

const niceness = 10

// trust asks for the cluster's CA once for all hosts.
func (w *Worker) trust(ctx context.Context) error {
	token, err := identity.ParseToken(w.o.Token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	cc, err := rpc.Dial(w.o.Coordinators, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: identity.ServerName,
		InsecureSkipVerify: true, //nolint:gosec // the token vouches for what is answered
	})
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	out, err := agentv1.NewEnrolmentServiceClient(cc).Roots(ctx, &agentv1.RootsRequest{})
	if err != nil {
		return fmt.Errorf("ask for the CA: %s", rpc.Text(err))
	}
	w.joining, err = identity.Joining(out.CaPem, token)
	return err
}

// join starts every host, so many at once.
func (w *Worker) join(ctx context.Context, hosts *sync.WaitGroup) {
	places := make(chan struct{}, max(1, w.o.AtOnce))
	for i := w.o.From; i < w.o.To; i++ {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		h := &host{w: w, i: i}
		var once sync.Once
		hosts.Go(func() {
			h.run(ctx, func() { once.Do(func() { w.joined.Add(1); <-places }) })
		})
	}
}

func (w *Worker) up(h *host, cancel context.CancelFunc) {
	w.live.Add(1)
	w.sessions.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancels[h] = cancel
}

func (w *Worker) down(h *host) {
	w.live.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cancels, h)
}

// drop ends every session, as a network that goes does.
func (w *Worker) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cancel := range w.cancels {
		cancel()
	}
}

func (w *Worker) done(h *host, a *agentv1.Assignment, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, Done{
		Deployment: a.Deployment, Host: h.i, Began: began.UnixMicro(), Ended: time.Now().UnixMicro(),
	})
}

// mostTroubles bounds the kinds of trouble that are told apart.
const mostTroubles = 20

// trouble counts why a host tries again, by the text without the host's name.
func (w *Worker) trouble(host string, err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.ReplaceAll(err.Error(), host, "HOST")
	if _, known := w.troubles[text]; !known && len(w.troubles) >= mostTroubles {
		text = "other"
	}
	w.troubles[text]++
}

func (w *Worker) counts(log bool) Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := Counts{
		Joined: w.joined.Load(), Up: w.live.Load(), Targets: w.targets.Load(), Reports: w.reports.Load(),
		Sessions: w.sessions.Load(),
	}
	if log {
		c.Done, c.Troubles = w.log, w.troubles
		w.log, w.troubles = nil, map[string]int{}
	}
	return c
}
