package main

import (
	"context"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/config"
)

// cli is one call of dctl: its streams, its surroundings and its global flags.
// Tests replace whatever is the world's.
type cli struct {
	in       io.Reader
	out, err io.Writer

	inTTY, outTTY bool
	getenv        func(string) (string, bool)
	// heartbeat returns a channel that fires while a watch is silent.
	heartbeat func(time.Duration) (<-chan time.Time, func())
	// wait returns after d, or earlier with the error of ctx.
	wait func(ctx context.Context, d time.Duration) error

	// patience is wait, for what is said of a wait.
	patience func(ctx context.Context, d time.Duration) error

	flags    globals
	args     []string // of this call
	drawing  bool     // a live view has the terminal
	answered bool     // a program has its answer on standard output already
}

// globals are the flags of every command.
type globals struct {
	coordinators []string
	context      string
	credentials  string
	output       string
	noColor      bool
	noInput      bool
	yes          bool
	stale        bool
	timeout      config.Duration
	reason       string
}

func newCLI(in io.Reader, out, err io.Writer) *cli {
	return &cli{
		in: in, out: out, err: err, inTTY: terminal(in), outTTY: terminal(out), getenv: os.LookupEnv,
		heartbeat: func(d time.Duration) (<-chan time.Time, func()) {
			t := time.NewTicker(d)
			return t.C, t.Stop
		},
		wait: sleep, patience: sleep,
	}
}

// terminal reports whether a person sits at the other end.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns is the width of the terminal that out is, 0 if it is none.
func (c *cli) columns() int {
	if f, ok := c.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return w
		}
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) error {
	if !backoff.Pause(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// env returns an environment variable, "" for none.
func (c *cli) env(name string) string {
	v, _ := c.getenv(name)
	return v
}

// The output formats.
const (
	outputAuto  = "auto"
	outputText  = "text"
	outputPlain = "plain"
	outputJSON  = "json"
	outputJSONL = "jsonl"
)

func outputs() []string {
	return []string{outputAuto, outputText, outputPlain, outputJSON, outputJSONL}
}

// machine reports whether standard output is for programs.
func (c *cli) machine() bool { return c.flags.output == outputJSON || c.flags.output == outputJSONL }

// live reports whether a watch may draw on the terminal.
func (c *cli) live() bool {
	return c.inTTY && c.outTTY && !c.flags.noInput && !c.machine() && c.flags.output != outputPlain &&
		c.env("TERM") != "dumb"
}

// reflows guesses from the environment whether the terminal wraps lines anew
// when its width changes: nearly all do, but xterm, the console and screen.
func (c *cli) reflows() bool {
	name := c.env("TERM")
	return c.env("XTERM_VERSION") == "" && name != "linux" && (!strings.HasPrefix(name,
		"screen") || c.env("TMUX") != "")
}
