package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/groundswell/groundswell/cmd/dctl/watch"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

// screen is a terminal: what a person sees, and what has scrolled away.
type screen struct {
	t     *testing.T
	mu    sync.Mutex
	model *vt.Emulator
	ours  *os.File // the person's side
	tty   *os.File // the program's side
	seen  strings.Builder
	slow  time.Duration // the time that it takes for every few bytes
	ended chan struct{}
}

// prompt stands above the view, as a shell's line does.
const prompt = "$ dctl deploy --app www --rev 9be01d7"

func newScreen(t *testing.T, columns, rows int) *screen {
	t.Helper()
	ours, tty, err := pty.Open()
	must(t, err)
	s := &screen{t: t, model: vt.NewEmulator(columns, rows), ours: ours, tty: tty, ended: make(chan struct{})}
	must(t, pty.Setsize(ours, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}))
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		_, _ = io.Copy(ours, s.model) // what a program asks a terminal; ends with it
	}()
	go s.show()
	t.Cleanup(func() {
		_ = tty.Close()
		<-s.ended
		_ = s.model.InputPipe().(io.Closer).Close() // the emulator's own Close races with its Read
		_ = ours.Close()
		<-answers
	})
	fmt.Fprintf(tty, "%s\r\n", prompt)
	return s
}

// show draws what the program writes, until the program's side is closed.
func (s *screen) show() {
	defer close(s.ended)
	buf := make([]byte, 512)
	for {
		n, err := s.ours.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		_, _ = s.model.Write(buf[:n])
		s.seen.Write(buf[:n])
		slow := s.slow
		s.mu.Unlock()
		time.Sleep(slow) // the line's, not a wait for something
	}
}

// text is everything from the first line on, the scrollback too, without
// trailing space.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, l := range s.model.Scrollback().Lines() {
		all = append(all, l.String())
	}
	all = append(all, strings.Split(s.model.String(), "\n")...)
	for i, l := range all {
		all[i] = strings.TrimRight(l, " \r")
	}
	return strings.TrimRight(strings.Join(all, "\n"), "\n")
}

// await polls the screen until it shows exactly this below the prompt.
func (s *screen) await(what, want string) {
	s.t.Helper()
	want = prompt + "\n" + strings.TrimRight(want, "\n")
	var got string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if got = s.text(); got == want {
			return
		}
	}
	s.t.Fatalf("%s: the screen shows\n%s\n---- and not\n%s", what, got, want)
}

// awaitCursor polls until the person has a cursor again.
func (s *screen) awaitCursor() {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		s.mu.Lock()
		hidden := s.model.CursorHidden()
		s.mu.Unlock()
		if !hidden {
			return
		}
	}
	s.t.Error("the cursor stays hidden")
}

func (s *screen) resize(columns, rows int) {
	s.mu.Lock()
	s.model.Resize(columns, rows)
	s.mu.Unlock()
	must(s.t, pty.Setsize(s.ours, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}))
	must(s.t, syscall.Kill(os.Getpid(), syscall.SIGWINCH)) // we are not in the session that the kernel tells
}

// rollout is a deployment to so many hosts in so many zones as it passes: the
// view grows and shrinks with the hosts at work and with what holds it.
func rollout(hosts int) []*controlv1.Deployment {
	zones := min(6, hosts/2)
	var out []*controlv1.Deployment
	add := func(status string, settled, granted, failed, holds int) {
		d := state(uint64(len(out)+1), status)
		d.Hosts, d.Waves = int32(hosts), nil
		left := settled
		for z := range zones {
			w := &controlv1.Wave{
				Name: fmt.Sprintf("zones/eu-%d", z), Zone: fmt.Sprintf("eu-%d", z),
				Total: int32(hosts / zones),
			}
			w.Settled = int32(min(left, hosts/zones))
			left -= int(w.Settled)
			w.Status = map[bool]string{true: "sealed", false: "deploying"}[w.Settled == w.Total]
			d.Waves = append(d.Waves, w)
		}
		for i := range granted {
			t := &controlv1.Task{
				Name: fmt.Sprintf("web-%03d", settled+i), Zone: "eu-0", Status: "granted", Event: "ApplicationStart",
				Script: "scripts/a_rather_long_name_that_does_not_fit_a_terminal_of_eighty_columns.sh",
			}
			if i < failed {
				t.Status, t.Failure = "failed", &controlv1.Failure{
					Event: "ValidateService", Script: "check.sh",
					Exit: "exit status 1",
				}
			}
			d.Tasks = append(d.Tasks, t)
		}
		for i := range holds {
			d.Holds = append(d.Holds, fmt.Sprintf("stages on web-%03d", i))
		}
		out = append(out, d)
	}
	add("pending", 0, 0, 0, 1)
	for settled := 0; settled < hosts; settled += max(hosts/6, 1) {
		add("running", settled, min(hosts-settled, 20), 0, 3)
		add("running", settled, min(hosts-settled, 2), 1, 0)
		add("running", settled, 0, 0, 8)
	}
	return out
}

// shown is what the view must draw of a state, without colours.
func shown(d *controlv1.Deployment, columns, rows int, done bool) string {
	return strings.Join(watch.Picture(d, columns, rows, done), "\n") + "\n"
}

// watched runs `dctl deploy` on a screen. Each state is sent once the former is
// seen, alone, below the prompt; then the deployment ends.
func watched(t *testing.T, s *screen, columns, rows, hosts int, step func(i int), extra ...string) called {
	t.Helper()
	all := rollout(hosts)
	next, see := make(chan struct{}), make(chan called)
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		for _, d := range all {
			send(news(d))
			<-next
		}
		end := state(uint64(len(all)+1), "succeeded")
		end.Hosts, end.Waves = int32(hosts), all[len(all)-1].Waves
		send(news(end, rec(end.Index, "deployment", "succeeded")))
		all = append(all, end)
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	go func() { see <- onScreen(t.Context(), cl, s, extra...) }()
	for i, d := range all[:] {
		s.await(fmt.Sprintf("state %d of %d hosts", i, hosts), shown(d, columns, rows, false))
		if step != nil {
			step(i)
		}
		next <- struct{}{}
	}
	got := <-see
	s.await("the end", shown(all[len(all)-1], columns, rows, true))
	return got
}

// onScreen runs dctl as a person does who sits at the screen.
func onScreen(ctx context.Context, cl *cluster, s *screen, extra ...string) called {
	return cl.callWith(ctx, func(c *cli) {
		c.in, c.out, c.err, c.inTTY, c.outTTY = s.tty, s.tty, s.tty, true, true
		getenv := c.getenv
		c.getenv = func(name string) (string, bool) {
			if name == "XTERM_VERSION" { // the model wraps nothing anew, as xterm
				return "XTerm(379)", true
			}
			return getenv(name)
		}
	}, append([]string{"deploy", "--app", "www", "--rev", "9be01d7"}, extra...)...)
}

// The view leaves nothing behind, whatever it grows and shrinks to, in
// terminals small and large.
func TestLiveLeavesNothingBehind(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {100, 30}, {140, 45}} {
		for _, hosts := range []int{6, 45, 300} {
			t.Run(fmt.Sprintf("%dx%d/%d", size[0], size[1], hosts), func(t *testing.T) {
				s := newScreen(t, size[0], size[1])
				if got := watched(t, s, size[0], size[1], hosts, nil); got.code != 0 {
					t.Errorf("%+v", got)
				}
				s.awaitCursor()
			})
		}
	}
}

// Nothing of a colour goes to a terminal whose owner wants none.
func TestLiveWithoutColours(t *testing.T) {
	s := newScreen(t, 80, 24)
	watched(t, s, 80, 24, 6, nil, "--no-color")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seq := range escapes.FindAllString(s.seen.String(), -1) {
		if strings.HasSuffix(seq, "m") && seq != "\x1b[m" {
			t.Errorf("%q", seq)
		}
	}
}

// A terminal at the end of a slow line gets the last picture all the same.
func TestLiveOnASlowTerminal(t *testing.T) {
	s := newScreen(t, 80, 24)
	s.mu.Lock()
	s.slow = 5 * time.Millisecond
	s.mu.Unlock()
	watched(t, s, 80, 24, 45, nil)
}

// Ctrl-C leaves the view, and what it says stands below.
func TestLiveCtrlC(t *testing.T) {
	s := newScreen(t, 80, 24)
	d := rollout(6)[1]
	leave := make(chan struct{})
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(d))
		<-leave
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	see := make(chan called)
	go func() { see <- onScreen(t.Context(), cl, s) }()
	s.await("running", shown(d, 80, 24, false))
	_, err := s.ours.Write([]byte{3})
	must(t, err)
	if got := <-see; got.code != exitDetached {
		t.Errorf("exit %d", got.code)
	}
	close(leave)
	s.await("left", shown(d, 80, 24, true)+`detached; deployment 01D goes on
  dctl watch 01D              watch it again
  dctl abort 01D --rollback   take it back`)
}

// Whoever makes the window smaller or larger finds one view in it.
func TestLiveResize(t *testing.T) {
	s := newScreen(t, 100, 30)
	sizes := [][2]int{{100, 30}, {80, 24}, {140, 45}, {100, 30}} // each holds all of it
	d := rollout(45)[1]
	leave := make(chan struct{})
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(d))
		<-leave
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	ctx, cancel := context.WithCancel(t.Context())
	see := make(chan called)
	go func() { see <- onScreen(ctx, cl, s) }()
	for _, size := range sizes {
		s.resize(size[0], size[1])
		s.await(fmt.Sprint(size), shown(d, size[0], size[1], false))
	}
	cancel()
	close(leave)
	<-see
}

// What a key prints stands above the view, which goes on below it.
func TestLiveLogsAbove(t *testing.T) {
	s := newScreen(t, 80, 24)
	all := rollout(6)
	next := make(chan struct{})
	f := &fake{
		logged: []*controlv1.LogsResponse{{Host: "web1", Event: "ApplicationStart", Data: []byte("one\ntwo\n")}},
		watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
			send func(...*controlv1.WatchDeploymentResponse),
		) error {
			send(news(all[1]))
			<-next
			send(news(all[2], rec(9, "wave", "deploying")))
			<-next
			return nil
		},
	}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	ctx, cancel := context.WithCancel(t.Context())
	see := make(chan called)
	go func() { see <- onScreen(ctx, cl, s) }()
	s.await("running", shown(all[1], 80, 24, false))
	_, err := s.ours.WriteString("\x1b[al") // an arrow is no key of ours
	must(t, err)
	const logs = "==> web1 ApplicationStart <==\n  | one\n  | two\n"
	s.await("logs", logs+shown(all[1], 80, 24, false))
	next <- struct{}{}
	s.await("the view goes on", logs+shown(all[2], 80, 24, false))
	cancel()
	close(next)
	<-see
}

// TestLiveProgram runs the view on something that is no terminal, to its end.
func TestLiveProgram(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{watch: ends(state(9, "rolled_back"))}))
	got := cl.callWith(t.Context(), func(c *cli) { c.inTTY, c.outTTY = true, true }, "deploy", "--app", "www", "--rev",
		"9be01d7")
	if got.code != 5 || !strings.Contains(got.out, "FAILED and rolled back") ||
		strings.Contains(got.out, "\x1b[?1049h") {
		t.Errorf("exit %d: %q %q", got.code, got.out, got.err)
	}
}
