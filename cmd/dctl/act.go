package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// actCommands are those that act on a running deployment.
func (c *cli) actCommands() []*cobra.Command {
	return []*cobra.Command{
		c.actCommand("pause", "Start nothing new; hosts at work finish"),
		c.actCommand("resume", "Go on after a pause"),
		c.actCommand("promote", "Count the bake of the present wave as passed"),
		c.retryCommand(),
		c.abortCommand(),
	}
}

func (c *cli) actCommand(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: args("ID"),
		Example: fmt.Sprintf("dctl %s 01JD4Z --reason \"asked by ops\"", verb),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error { return cl.act(cmd, args[0], verb) })
		},
	}
}

func (c *cli) retryCommand() *cobra.Command {
	cmd := c.actCommand("retry", "Try failed hosts again")
	cmd.Long = "Open the failed tasks of a deployment that waits for a decision again."
	cmd.Flags().Bool("failed-only", true, "only what failed; the rest is never done twice")
	return cmd
}

func (c *cli) abortCommand() *cobra.Command {
	var rollback, leave bool
	cmd := &cobra.Command{
		Use: "abort ID (--rollback|--leave)", Short: "End a deployment: go back, or leave hosts as they are", Args: args("ID"),
		Example: `dctl abort 01JD4Z --rollback --reason "errors in eu-1a"
dctl abort 01JD4Z --leave`,
	}
	cmd.Flags().BoolVar(&rollback, "rollback", false, "every host back to its last good revision")
	cmd.Flags().BoolVar(&leave, "leave", false, "hosts keep what they run; the fleet may stay mixed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if rollback == leave {
			return usage("say what becomes of the hosts: --rollback or --leave")
		}
		verb, question := "abort-leave", "Abort "+args[0]+" and leave hosts as they are?"
		if rollback {
			verb, question = "abort-rollback", "Abort "+args[0]+" and take every host back?"
		}
		if err := c.confirm(question); err != nil {
			return err
		}
		return c.with(func(cl *client) error { return cl.act(cmd, args[0], verb) })
	}
	return cmd
}

func (cl *client) act(cmd *cobra.Command, id, verb string) error {
	req := &controlv1.ActRequest{Mutation: cl.mutation(""), Deployment: id, Verb: verb}
	out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.Act, req)
	if err != nil {
		return err
	}
	return cl.cli.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s: accepted; watch it with `dctl watch %s`\n", verb, id) })
}

// confirm asks a person at a terminal; a program has said what it wants.
func (c *cli) confirm(question string) error {
	if c.flags.yes || c.flags.noInput || !c.inTTY || !c.outTTY {
		return nil
	}
	fmt.Fprint(c.err, clean(question)+" [y/N] ")
	answer, _ := bufio.NewReader(c.in).ReadString('\n') // an end of input is a no
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return &exitError{code: exitOther, text: "not confirmed, nothing was done"}
	}
	return nil
}

func (c *cli) rollbackCommand() *cobra.Command {
	var app, group, to string
	var detach bool
	var limit config.Duration
	cmd := &cobra.Command{
		Use: "rollback --app APP [--to REVISION]", Short: "Take an application back", Args: upTo(0),
		Long: `Take an application back to its last good revision, or to one that you name. A
deployment in flight is rolled back; else one is made that goes back. What is
still on a host's disk is not downloaded.

Exit codes: 0 rolled back; 6 some host could not go back; else as deploy.`,
		Example: `dctl rollback --app www
dctl rollback --app www --to 4f2a91c --reason "9be01d7 leaks memory"`,
	}
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&group, "group", "", "deployment group, where the application has several")
	cmd.Flags().StringVar(&to, "to", "", "revision to go back to (default: the last good one)")
	cmd.Flags().BoolVar(&detach, "detach", false, "print the id and do not watch")
	limitFlag(cmd, &limit)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		if err := c.confirm("Take " + app + " back?"); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req := &controlv1.RollbackRequest{Mutation: cl.mutation(""), App: app, Group: group, To: to}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.Rollback, req)
			if err != nil {
				return err
			}
			if detach {
				return c.show(out, func(w io.Writer) { fmt.Fprintln(w, out.Id) })
			}
			return cl.watch(cmd.Context(), target{id: out.Id, fresh: true, limit: time.Duration(limit), good: "rolled_back"})
		})
	}
	return cmd
}
