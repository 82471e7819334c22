package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/internal/bench"
)

// benchCommands are those that measure a cluster on one machine.
func (c *cli) benchCommands() []*cobra.Command {
	o := &bench.Options{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a cluster on this machine with simulated hosts",
		Long: `bench starts real coordinators as processes on loopback, and hosts that are
simulated but speak the real protocol over mutual TLS, several processes of
them, at nice 10. It measures joining, deploying and coming back, and ends with how many
hosts are stuck. Exit 0 only if every deployment succeeded and no host is.`,
		Example: `  dctl bench --hosts 10000 --deployments 1 --waves 6
  dctl bench --hosts 1000 --hosts-each 10 --waves 2 --duration 45s
  dctl bench --hosts 10000 --deployments 1 --joins --kill-leader 3 --reconnect -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.bench(cmd.Context(), o) },
	}
	fl := cmd.Flags()
	fl.IntVar(&o.Hosts, "hosts", 1000, "simulated hosts, at most 60,000")
	fl.IntVar(&o.Coordinators, "coordinators", 3, "coordinators, 1, 3 or 5")
	fl.IntVar(&o.Deployments, "deployments", 1, "deployments, at least")
	fl.IntVar(&o.HostsEach, "hosts-each", 0, "hosts of a deployment (default all); each part is an application of its own")
	fl.IntVar(&o.Waves, "waves", 1, "waves of a deployment, of equal size")
	fl.DurationVar(&o.Duration, "duration", 0, "deploy on until this has passed")
	fl.IntVar(&o.KillLeader, "kill-leader", 0, "kill the leader so often, and start it again")
	fl.BoolVar(&o.Reconnect, "reconnect", false, "cut every session at once")
	fl.BoolVar(&o.Joins, "joins", false, "tell how fast the fleet grew at each size")
	fl.IntVar(&o.AtOnce, "at-once", 256, "hosts that join at the same time")
	fl.DurationVar(&o.Idle, "idle", 20*time.Second, "how long to look at a fleet without work; 0 does not")
	fl.StringVar(&o.Dir, "dir", "", "folder of everything (default a new temporary one)")
	fl.StringVar(&o.Bin, "bin", "", "folder of dcoord (default that of dctl)")
	fl.BoolVar(&o.Keep, "keep", false, "keep the folder with state and logs")
	fl.BoolVar(&o.Profiles, "profiles", false, "say where the coordinators serve profiles")
	hosts := &cobra.Command{
		Use: benchHosts, Hidden: true, Args: cobra.NoArgs,
		Short:   "Be some of the simulated hosts of dctl bench",
		Example: `  dctl bench-hosts < orders`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.RunWorker(cmd.Context(), c.in, c.out)
		},
	}
	return []*cobra.Command{cmd, hosts}
}

const benchHosts = "bench-hosts"

// bench measures, and prints a table or one JSON object.
func (c *cli) bench(ctx context.Context, o *bench.Options) error {
	if err := benchOptions(o); err != nil {
		return err
	}
	o.Say = func(format string, args ...any) { fmt.Fprintf(c.err, "  "+format+"\n", args...) }
	out, err := bench.Run(ctx, *o)
	if err != nil {
		if out != nil {
			fmt.Fprint(c.err, out.Table())
		}
		return err
	}
	if c.machine() {
		if err := json.NewEncoder(c.out).Encode(out); err != nil {
			return err
		}
	} else {
		fmt.Fprint(c.out, out.Table())
	}
	if !out.Planned() {
		return silent(exitOther)
	}
	return nil
}

// mostBenchHosts have an address each, 127.1.0.0 and on.
const mostBenchHosts = 60_000

// benchOptions checks the flags, and makes the folder.
func benchOptions(o *bench.Options) (err error) {
	switch {
	case o.Hosts < 1 || o.Hosts > mostBenchHosts:
		return usage("--hosts %d: use 1 to %d", o.Hosts, mostBenchHosts)
	case o.Coordinators != 1 && o.Coordinators != 3 && o.Coordinators != 5:
		return usage("--coordinators %d: use 1, 3 or 5", o.Coordinators)
	case o.HostsEach < 0 || o.HostsEach > o.Hosts:
		return usage("--hosts-each %d: use at most --hosts", o.HostsEach)
	case o.Waves < 1 || o.Waves > 50:
		return usage("--waves %d: use 1 to 50", o.Waves)
	case o.Deployments < 0 || o.KillLeader < 0 || o.AtOnce < 1 || o.Duration < 0 || o.Idle < 0 ||
		o.Duration > 24*time.Hour:
		return usage("--deployments, --kill-leader, --at-once, --idle and --duration are not negative, and a day at most")
	case o.KillLeader > 0 && o.Coordinators == 1:
		return usage("--kill-leader needs three coordinators: with one nobody is left")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find dctl's own file: %w", err)
	}
	o.Worker = []string{self, benchHosts}
	if o.Bin == "" {
		o.Bin = filepath.Dir(self)
	}
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.Bin, "dcoord")); err != nil {
		return usage("dcoord is not beside dctl in %s: run `make build`, or say --bin", o.Bin)
	}
	f := &devFlags{dir: o.Dir}
	dir, err := f.folder("groundswell-bench-")
	o.Dir = dir
	return err
}
