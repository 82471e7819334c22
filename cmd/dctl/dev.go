package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/devfleet"
)

// devFlags are the flags of `dctl dev`.
type devFlags struct {
	auto, keep, bench           bool
	dir, bin                    string
	coordinators, agents, zones int
	rounds                      int
}

// devCommands are those of a fleet on one machine.
func (c *cli) devCommands() []*cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole fleet on this machine and show it deploying",
		Long: `dev starts real coordinators, an S3 server and agents as processes on loopback,
deploys the example web application, upgrades it by waves, rolls back a release
that fails its gate, and kills the leader in the middle of a deployment.

On a terminal it stays up afterwards for you to try; Ctrl-C ends everything.
With --auto it asserts every outcome and exits 0 only if all held.`,
		Example: `  dctl dev
  dctl dev --auto --output jsonl
  dctl dev --bench --agents 50`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.dev(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.auto, "auto", false, "do not stay up: assert every outcome, clean up, exit")
	fl.BoolVar(&f.keep, "keep", false, "keep the folder with state and logs")
	fl.BoolVar(&f.bench, "bench", false, "measure deployments instead of the demo")
	fl.StringVar(&f.dir, "dir", "", "folder of everything (default a new temporary one)")
	fl.StringVar(&f.bin, "bin", "", "folder of dcoord, dagent and www (default that of dctl)")
	fl.IntVar(&f.coordinators, "coordinators", 3, "coordinators, 1 or 3")
	fl.IntVar(&f.agents, "agents", 12, "agents")
	fl.IntVar(&f.zones, "zones", 3, "zones, at most 26")
	fl.IntVar(&f.rounds, "rounds", 5, "deployments per figure of --bench")
	return []*cobra.Command{cmd}
}

// options checks the flags and makes the folder.
func (f *devFlags) options() (devfleet.Options, error) {
	o := devfleet.Options{Coordinators: f.coordinators, Agents: f.agents, Zones: f.zones, Keep: f.keep, Bin: f.bin}
	switch {
	case f.coordinators != 1 && f.coordinators != 3:
		return o, usage("--coordinators %d: use 1 or 3", f.coordinators)
	case f.agents < 1 || f.agents > 200:
		return o, usage("--agents %d: use 1 to 200", f.agents)
	case f.zones < 1 || f.zones > 26 || f.zones > f.agents:
		return o, usage("--zones %d: use 1 to 26, and not more than agents", f.zones)
	case f.rounds < 1 || f.rounds > 100:
		return o, usage("--rounds %d: use 1 to 100", f.rounds)
	}
	if o.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find dctl's own file: %w", err)
		}
		o.Bin = filepath.Dir(self)
	}
	var err error
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return o, err
	}
	for _, name := range []string{"dcoord", "dagent", "www"} {
		if _, err := os.Stat(filepath.Join(o.Bin, name)); err != nil {
			return o, usage("%s is not beside dctl in %s: run `make build`, or say --bin", name, o.Bin)
		}
	}
	return o, f.makeDir(&o)
}

func (f *devFlags) makeDir(o *devfleet.Options) (err error) {
	o.Dir, err = f.folder("groundswell-dev-")
	return err
}

// folder makes the folder of everything, which is removed at the end.
func (f *devFlags) folder(temporary string) (string, error) {
	if f.dir == "" {
		dir, err := os.MkdirTemp("", temporary)
		if err != nil {
			return "", fmt.Errorf("make a temporary folder: %w", err)
		}
		return dir, nil
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return "", err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", usage("--dir %s is not empty; it would be removed at the end", dir)
	}
	return dir, os.MkdirAll(dir, 0o755)
}

func (c *cli) dev(ctx context.Context, f *devFlags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(c.err, "  "+format+"\n", args...) }
	if f.bench {
		return c.devBench(ctx, f, o, say)
	}
	contexts := filepath.Join(o.Dir, "contexts.yaml")
	demo := &devfleet.Demo{
		Options: o, Dctl: filepath.Join(o.Bin, "dctl"), Say: say, Emit: c.devStep,
		Env: []string{"DCTL_CONFIG=" + contexts, "DCTL_OUTPUT=plain", "DCTL_CONTEXT=" + devContext},
		Ready: func(fleet *devfleet.Fleet) error {
			return WriteContext(contexts, devContext,
				Context{Coordinators: fleet.Addresses(), Credentials: fleet.Credentials()}, true)
		},
	}
	if !c.machine() {
		if out, ok := c.out.(*os.File); ok {
			demo.Watch = out
		}
		if in, ok := c.in.(*os.File); ok && c.live() {
			demo.Keys = in
			if before, err := term.GetState(int(in.Fd())); err == nil {
				defer func() { _ = term.Restore(int(in.Fd()), before) }() // whatever became of a view
			}
		}
	}
	var stay func(context.Context, *devfleet.Fleet)
	if !f.auto && c.outTTY && !c.machine() {
		stay = func(ctx context.Context, fleet *devfleet.Fleet) { c.devStay(ctx, fleet, o.Bin, contexts) }
	}
	ok := demo.Run(ctx, stay)
	c.answered = true // by a line a step
	switch {
	case ctx.Err() != nil && stay == nil:
		return &exitError{code: exitDetached, err: errors.New("interrupted; everything was stopped")}
	case !ok:
		return &exitError{code: exitOther, err: errors.New("a step failed")}
	}
	return nil
}

// devStep shows one finished step.
func (c *cli) devStep(s devfleet.Step) {
	if c.machine() {
		_ = json.NewEncoder(c.out).Encode(s) // a closed pipe ends us by signal
		return
	}
	mark := "✔"
	if s.Result != "pass" {
		mark = "✘"
	}
	fmt.Fprintf(c.out, "%s %-12s %5.1f s  %s\n", mark, s.Step, s.Seconds, s.Outcome)
	for _, a := range s.Asserted {
		if !a.OK {
			fmt.Fprintf(c.out, "    %s: want %s, got %s\n", a.What, a.Want, a.Got)
		}
	}
	if s.Message != "" {
		fmt.Fprintf(c.out, "    %s\n", strings.ReplaceAll(output.Clean(s.Message), "\n", "\n    "))
	}
}

// devStay keeps the fleet up for a second terminal until Ctrl-C.
func (c *cli) devStay(ctx context.Context, fleet *devfleet.Fleet, bin, contexts string) {
	env, err := writeDevEnv(fleet, bin, contexts)
	if err != nil {
		fmt.Fprintln(c.err, "dctl: no second terminal will find the fleet:", err)
		return
	}
	flags := ""
	if path, err := ContextsPath(c.getenv); err == nil {
		claim, err := claimDevContext(path, Context{Coordinators: fleet.Addresses(), Credentials: fleet.Credentials()})
		if err != nil {
			fmt.Fprintln(c.err, "dctl: no context was written:", err)
		} else {
			flags = " --context " + claim.name
			defer func() {
				if err := claim.release(); err != nil {
					fmt.Fprintln(c.err, "dctl:", err)
				}
			}()
		}
	}
	fmt.Fprintf(c.out, `
The fleet is up. In a second terminal, first
  . %s
and then try
  dctl status
  dctl hosts list
  dctl history --app www
  dctl rollback --app www
  dctl deploy --app www --rev v4
  www bundle --dir %s/v5 --revision v5
  dctl revisions push %s/v5 --app www --rev v5
  dctl deploy --app www --rev v5
  curl http://127.0.0.1:%d/
Without that first line it is %s%s status.
Everything lives in %s. Ctrl-C ends it.
`, quote(env), fleet.Dir(), fleet.Dir(), fleet.Hosts[0].Port, filepath.Join(bin, "dctl"), flags, fleet.Dir())
	<-ctx.Done()
}

// devBench measures, and prints a table or one JSON object.
func (c *cli) devBench(ctx context.Context, f *devFlags, o devfleet.Options, say func(string, ...any)) error {
	b, err := devfleet.Bench(ctx, o, filepath.Join(o.Bin, "dctl"), f.rounds, say)
	if err != nil {
		return err
	}
	if c.machine() {
		return json.NewEncoder(c.out).Encode(b)
	}
	fmt.Fprint(c.out, b.Table())
	return nil
}
