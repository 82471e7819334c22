package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) hostsDrain() *cobra.Command {
	return c.drainCommand("drain", "Take a host out of its pools; what runs there goes on", false,
		`Take a host out of every pool that sends it traffic, for a new kernel, a new disk or a
look at it. What runs there goes on, no hook runs. It waits while too few others serve:
the floor of each of its groups holds, as for a deployment. A drained host does not count
as serving, gets no new work, and is not forgotten while it is away. The command returns
when it is out, or after --timeout: then it goes on all the same, and the same command
waits again.`,
		`dctl hosts drain web-07 --reason "kernel update"
dctl hosts drain web-07 --no-wait`)
}

func (c *cli) hostsUndrain() *cobra.Command {
	return c.drainCommand("undrain", "Put a drained host back into its pools", true,
		`Put a host back into its pools, as each was found. It counts again once it is in all of
them; what it missed meanwhile is deployed to it.`, "dctl hosts undrain web-07")
}

func (c *cli) drainCommand(use, short string, undo bool, long, example string) *cobra.Command {
	noWait := false
	cmd := &cobra.Command{
		Use: use + " HOST", Short: short, Args: args("HOST"), Long: long, Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				found, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetHost,
					&controlv1.GetHostRequest{Host: args[0]})
				if err != nil {
					return err
				}
				if d := found.Host.Drain; d == nil || undo != (d.State == "returning") { // else it is waited for again
					_, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.DrainHost,
						&controlv1.DrainHostRequest{Mutation: cl.mutation(""), Host: args[0], Undo: undo})
					if err != nil {
						return err
					}
				}
				return c.awaitDrain(cmd.Context(), cl, args[0], undo, noWait)
			})
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	return cmd
}

// awaitDrain tells how far the host is until it is there.
func (c *cli) awaitDrain(ctx context.Context, cl *client, host string, undo, noWait bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.flags.timeout))
	defer cancel()
	said, last := "", "nothing was heard of it"
	late := func() error {
		return fmt.Errorf("%s is not there after %s (%s); it goes on: the same command waits again, `dctl hosts show %s` "+
			"says how far it is, `dctl hosts %s %s` calls it off", output.Line(host), c.flags.timeout, output.Line(last), host,
			map[bool]string{true: "drain", false: "undrain"}[undo], host)
	}
	for {
		out, err := call(ctx, cl, controlv1.ControlServiceClient.GetHost, &controlv1.GetHostRequest{Host: host})
		if err != nil && ctx.Err() != nil {
			return late()
		}
		if err != nil {
			return err
		}
		d := out.Host.Drain
		last = drainLine(d)
		there := undo && d == nil || !undo && d.GetState() == "drained"
		switch {
		case !undo && (d == nil || d.State == "returning"):
			return fmt.Errorf("the drain of %s was undone by somebody else", output.Line(host))
		case undo && d != nil && d.State != "returning":
			return fmt.Errorf("%s was drained again by somebody else", output.Line(host))
		case there || noWait:
			return c.show(out.Host, func(w io.Writer) { fmt.Fprintln(w, output.Line(host+": "+drainLine(d))) })
		}
		if line := drainLine(d); line != said && !c.machine() {
			said = line
			fmt.Fprintln(c.err, output.Line(host+": "+line))
		}
		if c.wait(ctx, 200*time.Millisecond) != nil {
			return late()
		}
	}
}

// drainLine says in a line how far a host is.
func drainLine(d *controlv1.Drain) string {
	by := ""
	if d.GetActor() != "" {
		by = " by " + d.Actor
		if d.Reason != "" {
			by += ": " + d.Reason
		}
	}
	switch d.GetState() {
	case "":
		return "serves, and counts again"
	case "waiting":
		if d.Hold == "" {
			return "to be drained" + by
		}
		return "to be drained" + by + "; waits: " + d.Hold
	case "leaving":
		return "leaves its pools" + doing(d) + "; drained" + by
	case "returning":
		return "goes back into its pools" + doing(d)
	}
	return "drained" + by
}

func doing(d *controlv1.Drain) string {
	if len(d.Doing) == 0 {
		return ""
	}
	return " (" + strings.Join(d.Doing, "; ") + ")"
}

// drainState is what a list adds to the state of a host.
func drainState(d *controlv1.Drain) string {
	switch d.GetState() {
	case "waiting", "leaving":
		return ", draining"
	case "drained":
		return ", drained"
	case "returning":
		return ", undraining"
	}
	return ""
}
