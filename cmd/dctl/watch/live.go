package watch

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/cancelreader"
	"golang.org/x/term"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// liveEvery is the least time between two pictures: what a slow terminal cannot
// show is not drawn for it.
const liveEvery = 50 * time.Millisecond

// live draws a watch on the terminal, inline: what it last drew stays in the
// scrollback.
func live(ctx context.Context, c Cluster, o Options, p *Progress, updates <-chan Update) error {
	ctx, cancel := context.WithCancel(ctx)
	v := &liveView{cluster: c, o: o, s: p, width: 80, height: 24, plain: o.NoColour, answers: make(chan answer)}
	v.frame = frame{out: o.Out, reflows: o.Reflows}
	defer v.asked.Wait()
	defer cancel()
	keys, restore := keys(ctx, o.In)
	defer restore()
	return v.run(ctx, updates, keys)
}

// liveView is what the live view shows and what its keys do. It belongs to the
// goroutine of run.
type liveView struct {
	cluster Cluster
	o       Options
	s       *Progress
	frame   frame
	width   int // of the terminal, in columns and rows
	height  int
	plain   bool
	ask     bool   // whether to abort
	said    string // the answer to the last key
	done    bool

	asked   sync.WaitGroup // requests that keys made
	answers chan answer
}

// answer is what came of a key: a word below the view, or text above it.
type answer struct{ said, above string }

// run draws until the watch ends, a person leaves, or ctx ends.
func (v *liveView) run(ctx context.Context, updates <-chan Update, keys <-chan rune) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	stale := true
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return v.leave(ctx.Err())
			}
			if u.end != nil {
				return v.leave(u.end)
			}
			v.take(u)
			stale = true
		case k, ok := <-keys:
			if !ok {
				keys = nil // nobody types any more
			} else if err := v.key(ctx, k); err != nil {
				return v.leave(err)
			}
			stale = true
		case a := <-v.answers:
			v.said = a.said
			if a.above != "" {
				v.show(a.above)
			}
			stale = true
		case <-resized:
			stale = true
		case <-tick.C:
			if stale {
				v.show("")
			}
			stale = false
		case <-ctx.Done():
			return v.leave(ctx.Err())
		}
	}
}

func (v *liveView) take(u Update) {
	v.s.add(u)
	if len(u.Records) > 0 {
		v.said = ""
	}
}

// show draws the present state; a terminal that is gone ends us by its signal.
func (v *liveView) show(above string) {
	if f, ok := v.o.Out.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			v.width, v.height = w, h
		}
	}
	_ = v.frame.draw(v.width, above, v.lines())
}

// leave draws the last picture.
func (v *liveView) leave(err error) error {
	v.done = true
	v.show("")
	return err
}

// ctrlC is what a terminal in raw mode sends for Ctrl-C.
const ctrlC = 3

// key does what a key stands for; its error ends the view.
func (v *liveView) key(ctx context.Context, k rune) error {
	if v.ask {
		v.ask = false
		switch k {
		case 'r':
			v.act(ctx, "abort-rollback")
		case 'l':
			v.act(ctx, "abort-leave")
		default:
			v.said = "not aborted"
		}
		return nil
	}
	switch k {
	case 'q', ctrlC:
		return ErrDetached
	case 'p':
		if v.s.Deployment.GetStatus() == "paused" {
			v.act(ctx, "resume")
		} else {
			v.act(ctx, "pause")
		}
	case 'a':
		v.ask = true
	case 'l':
		v.inBackground(ctx, v.logs)
	}
	return nil
}

// inBackground runs a request that a key asks for; its answer is shown.
func (v *liveView) inBackground(ctx context.Context, request func(context.Context) answer) {
	v.said = "…"
	v.asked.Go(func() {
		a := request(ctx)
		select {
		case v.answers <- a:
		case <-ctx.Done():
		}
	})
}

func (v *liveView) act(ctx context.Context, verb string) {
	v.inBackground(ctx, func(ctx context.Context) answer {
		if err := v.cluster.Act(ctx, v.o.Deployment, verb); err != nil {
			return answer{said: verb + ": " + err.Error()}
		}
		return answer{said: verb + ": accepted"}
	})
}

// logs prints the last lines of what failed, else of everything, above the view.
func (v *liveView) logs(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := v.cluster.API().Logs(ctx, &controlv1.LogsRequest{Deployment: v.o.Deployment})
	if err != nil {
		return answer{said: "logs: " + rpc.Text(err)}
	}
	text := newWritten()
	for {
		r, err := s.Recv()
		if err != nil {
			break // the end, or as much as there was
		}
		text.add(r)
	}
	if text.empty() {
		return answer{said: "logs: no hook has written anything yet"}
	}
	return answer{above: text.String()}
}

// keys makes the terminal hand over every key at once, until restore is called
// or ctx ends. Without a terminal there are none.
func keys(ctx context.Context, from io.Reader) (_ <-chan rune, restore func()) {
	none := func() {}
	in, ok := from.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, none
	}
	r, err := cancelreader.NewReader(in)
	if err != nil {
		return nil, none
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		_ = r.Close()
		return nil, none
	}
	keys, ended := make(chan rune), make(chan struct{})
	go func() {
		defer close(ended)
		readKeys(ctx, r, keys)
	}()
	return keys, func() {
		_ = term.Restore(int(in.Fd()), before) // a terminal that is gone needs none
		if r.Cancel() {
			<-ended
		}
		_ = r.Close()
	}
}

// readKeys hands on single keys, without the sequences of arrows and the like.
func readKeys(ctx context.Context, r cancelreader.CancelReader, keys chan<- rune) {
	defer close(keys)
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		for _, k := range ansi.Strip(string(buf[:n])) {
			select {
			case keys <- k:
			case <-ctx.Done():
				return
			}
		}
	}
}
