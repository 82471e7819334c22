package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/cancelreader"
	"golang.org/x/term"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// liveEvery is the least time between two pictures: what a slow terminal cannot
// show is not drawn for it.
const liveEvery = 50 * time.Millisecond

// live draws a watch on the terminal, inline: what it last drew stays in the
// scrollback.
func (cl *client) live(ctx context.Context, t target, s *story, updates <-chan update) error {
	ctx, cancel := context.WithCancel(ctx)
	v := &liveView{cl: cl, t: t, s: s, width: 80, height: 24, plain: cl.cli.flags.noColor, answers: make(chan answer)}
	v.frame = frame{out: cl.cli.out, reflows: cl.cli.reflows()}
	cl.cli.drawing = true
	defer func() { cl.cli.drawing = false }()
	defer v.asked.Wait()
	defer cancel()
	keys, restore := cl.cli.keys(ctx)
	defer restore()
	return v.run(ctx, updates, keys)
}

// liveView is what the live view shows and what its keys do. It belongs to the
// goroutine of run.
type liveView struct {
	cl     *client
	t      target
	s      *story
	frame  frame
	width  int // of the terminal, in columns and rows
	height int
	plain  bool
	ask    bool   // whether to abort
	said   string // the answer to the last key
	done   bool

	asked   sync.WaitGroup // requests that keys made
	answers chan answer
}

// answer is what came of a key: a word below the view, or text above it.
type answer struct{ said, above string }

// run draws until the watch ends, a person leaves, or ctx ends.
func (v *liveView) run(ctx context.Context, updates <-chan update, keys <-chan rune) error {
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

func (v *liveView) take(u update) {
	v.s.add(u)
	if len(u.records) > 0 {
		v.said = ""
	}
}

// show draws the present state; a terminal that is gone ends us by its signal.
func (v *liveView) show(above string) {
	if f, ok := v.cl.cli.out.(*os.File); ok {
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
		return errDetached
	case 'p':
		if v.s.deployment.GetStatus() == "paused" {
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
		req := &controlv1.ActRequest{Mutation: v.cl.mutation(""), Deployment: v.t.id, Verb: verb}
		if _, err := call(ctx, v.cl, controlv1.ControlServiceClient.Act, req); err != nil {
			return answer{said: verb + ": " + message(err)}
		}
		return answer{said: verb + ": accepted"}
	})
}

// logs prints the last lines of what failed, else of everything, above the view.
func (v *liveView) logs(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := v.cl.api().Logs(ctx, &controlv1.LogsRequest{Deployment: v.t.id})
	if err != nil {
		return answer{said: "logs: " + message(err)}
	}
	tails := newTails()
	for {
		r, err := s.Recv()
		if err != nil {
			break // the end, or as much as there was
		}
		tails.add(r)
	}
	if tails.empty() {
		return answer{said: "logs: no hook has written anything yet"}
	}
	return answer{above: tails.String()}
}

// keys makes the terminal hand over every key at once, until restore is called
// or ctx ends. Without a terminal there are none.
func (c *cli) keys(ctx context.Context) (_ <-chan rune, restore func()) {
	none := func() {}
	in, ok := c.in.(*os.File)
	if !ok || !terminal(in) {
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
