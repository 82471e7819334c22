package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// actCommands are those that act on a running deployment.
func (c *cli) actCommands() []*cobra.Command {
	return []*cobra.Command{
		c.actCommand("pause", "Start nothing new; hosts at work finish"),
		c.actCommand("resume", "Go on after a pause"),
		c.promoteCommand(),
		c.approvalCommand("approve", "Say yes to a gate that waits for people"),
		c.approvalCommand("reject", "Say no: the deployment stops, hosts keep what they run"),
		c.retryCommand(),
		c.skipZoneCommand(),
		c.skipHostCommand(),
		c.takeOverCommand(),
		c.fixesCommand(),
		c.abortCommand(),
	}
}

func (c *cli) promoteCommand() *cobra.Command {
	var gate, wave string
	emergency := false
	cmd := &cobra.Command{
		Use: "promote ID [--gate NAME]", Short: "Count a bake, a window or an inconclusive gate " +
			"as passed", Args: args("ID"),
		Long: "Count what holds the present waves as passed: a bake, a closed window, a gate without\nan answer; " +
			"or only the one that is named. Never a gate that failed, nor an approval.\n\nWith --emergency the " +
			"deployment is one from here on: no window, freeze or\napproval holds it any more; floors, bakes and gates do. " +
			"It is a right of its own,\nneeds a reason, and everybody sees it. A rollback needs none: nothing holds it.",
		Example: "dctl promote 01JD4Z --reason \"looks good\"\ndctl promote 01JD4Z --gate bake --wave one-box\n" +
			"dctl promote 01JD4Z --emergency --reason \"customers cannot log in\"",
	}
	cmd.Flags().BoolVar(&emergency, "emergency", false, "let it go on past windows, freezes and approvals; needs --reason")
	cmd.Flags().StringVar(&gate, "gate", "", "name of the gate, or bake (default: all that wait)")
	cmd.Flags().StringVar(&wave, "wave", "", "only in this wave")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !emergency {
			return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "promote", Gate: gate, Wave: wave})
		}
		switch {
		case c.flags.reason == "":
			return usage("--emergency goes past what others have set up; say why with --reason, everybody is shown it")
		case gate != "" || wave != "":
			return usage("--emergency is of the deployment whole: give no --gate or --wave")
		}
		return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "emergency"})
	}
	return cmd
}

func (c *cli) approvalCommand(verb, short string) *cobra.Command {
	var gate string
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Args: args("ID"),
		Long: short + ". Who asked for the deployment cannot\napprove it, and nobody counts twice; the history " +
			"keeps who, when and why.",
		Example: fmt.Sprintf("dctl %s 01JD4Z --reason \"checked with support\"", verb),
	}
	cmd.Flags().StringVar(&gate, "gate", "", "name of the gate (default: every one that waits)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: verb, Gate: gate})
	}
	return cmd
}

func (c *cli) skipZoneCommand() *cobra.Command {
	return &cobra.Command{
		Use: "skip-zone ID ZONE", Short: "Go on without a zone, after a failure there", Args: args("ID", "ZONE"),
		Long: "Go on without a zone that failed or was taken back. Its hosts keep what they run\nuntil the next " +
			"deployment.",
		Example: "dctl skip-zone 01JD4Z eu-1b --reason \"zone incident\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "skip-zone", Zone: args[1]})
		},
	}
}

func (c *cli) skipHostCommand() *cobra.Command {
	return &cobra.Command{
		Use: "skip-host ID HOST...", Short: "Leave hosts out for now; they are caught up " +
			"with later", Args: cobra.MinimumNArgs(2),
		Example: "dctl skip-host 01JD4Z www-07 www-09 --reason \"being repaired\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "skip-hosts", Hosts: args[1:]})
		},
	}
}

func (c *cli) takeOverCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use: "take-over ID", Short: "End a deployment in favour of a newer one", Args: args("ID"),
		Long: "End a deployment in favour of a newer one in flight: hosts keep what they run until\nthe newer one " +
			"comes to them.",
		Example: "dctl deploy --app www --rev 77ac01e --fixes 9be01d7 --detach\ndctl take-over 01JD4Z --reason " +
			"\"77ac01e repairs it\"",
	}
	cmd.Flags().StringVar(&by, "by", "", "the newer deployment (default: the next one)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "take-over", By: by})
	}
	return cmd
}

func (c *cli) fixesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fixes ID REVISION", Short: "Declare that a deployment repairs a revision", Args: args("ID", "REVISION"),
		Long: "Declare that a deployment in flight repairs an older revision, so that the rollback of\nthat one " +
			"does not take this one back too.",
		Example: "dctl fixes 01JD5A 9be01d7",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: "fixes", Fixes: args[1]})
		},
	}
}

// request makes one request on a deployment.
func (c *cli) request(cmd *cobra.Command, req *controlv1.ActRequest) error {
	return c.with(func(cl *client) error {
		req.Mutation = cl.mutation("")
		out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.Act, req)
		if err != nil {
			return err
		}
		return c.show(out, func(w io.Writer) {
			fmt.Fprintf(w, "%s: accepted; watch it with `dctl watch %s`\n", req.Verb, req.Deployment)
		})
	})
}

func (c *cli) actCommand(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: args("ID"),
		Example: fmt.Sprintf("dctl %s 01JD4Z --reason \"asked by ops\"", verb),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: verb})
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
		Use: "abort ID (--rollback|--leave)", Short: "End a deployment: go back, or leave hosts as " +
			"they are", Args: args("ID"),
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
		return c.request(cmd, &controlv1.ActRequest{Deployment: args[0], Verb: verb})
	}
	return cmd
}

// asks reports whether a person is there who has not said yes yet.
func (c *cli) asks() bool { return !c.flags.yes && !c.flags.noInput && c.inTTY && c.outTTY }

// confirm asks a person at a terminal; a program has said what it wants.
func (c *cli) confirm(question string) error {
	if !c.asks() {
		return nil
	}
	fmt.Fprint(c.err, output.Clean(question)+" [y/N] ")
	answer, _ := bufio.NewReader(c.in).ReadString('\n') // an end of input is a no
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return &exitError{code: exitOther, text: "not confirmed, nothing was done"}
	}
	return nil
}

// confirmHard asks a person about something that a program must have said with
// --yes.
func (c *cli) confirmHard(what, question string) error {
	if c.flags.yes {
		return nil
	}
	if c.flags.noInput || !c.inTTY || !c.outTTY {
		return &exitError{code: exitRefused, text: what + "; say --yes to do it"}
	}
	fmt.Fprintln(c.err, output.Line(what))
	return c.confirm(question)
}

// confirmRollback asks a person, naming what would go back and to where.
func (cl *client) confirmRollback(ctx context.Context, r *controlv1.RollbackRequest) error {
	if !cl.cli.asks() {
		return nil
	}
	dry := proto.CloneOf(r)
	dry.DryRun = true
	would, err := call(ctx, cl, controlv1.ControlServiceClient.Rollback, dry)
	if err != nil {
		return err
	}
	from := ""
	if would.From != "" {
		from = " from " + would.From
	}
	switch {
	case would.Id != "":
		return cl.cli.confirm("Roll deployment " + would.Id + " of " + would.From + " back, each host of " + r.App +
			" to what it ran before?")
	case would.To != "":
		return cl.cli.confirm("Take " + r.App + from + " back to " + would.To + "?")
	}
	return cl.cli.confirm("Take " + r.App + from + " back, each host to what it ran before?")
}

func (c *cli) rollbackCommand() *cobra.Command {
	var app, group, to, zone, wave string
	var detach, all bool
	var limit config.Duration
	cmd := &cobra.Command{
		Use: "rollback --app APP [--to REVISION | --zone ZONE | " +
			"--wave WAVE]", Short: "Take an application back", Args: upTo(0),
		Long: `Take an application back to its last good revision, or to one that you name. A
deployment in flight is rolled back; else one is made that goes back. What is
still on a host's disk is not downloaded. With --zone or --wave only that part of
the deployment in flight goes back, and the deployment then waits for a decision.

Exit codes: 0 rolled back; 6 some host could not go back; else as deploy.`,
		Example: `dctl rollback --app www
dctl rollback --app www --to 4f2a91c --reason "9be01d7 leaks memory"
dctl rollback --app www --zone eu-1b --reason "errors there"`,
	}
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&group, "group", "", "deployment group, where the application has several")
	cmd.Flags().StringVar(&to, "to", "", "revision to go back to (default: the last good one)")
	cmd.Flags().StringVar(&zone, "zone", "", "only this zone of the deployment in flight")
	cmd.Flags().StringVar(&wave, "wave", "", "only this wave of the deployment in flight")
	cmd.Flags().BoolVar(&all, "all", false, "every host, which is the default")
	cmd.Flags().BoolVar(&detach, "detach", false, "print the id and do not watch")
	limitFlag(cmd, &limit)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		if zone != "" || wave != "" {
			if to != "" || all {
				return usage("--zone and --wave take a part of a deployment back; --to and --all exclude them")
			}
			return c.rollbackPart(cmd, app, group, &controlv1.ActRequest{Verb: "rollback", Zone: zone, Wave: wave})
		}
		return c.with(func(cl *client) error {
			req := &controlv1.RollbackRequest{Mutation: cl.mutation(""), App: app, Group: group, To: to}
			if err := cl.confirmRollback(cmd.Context(), req); err != nil {
				return err
			}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.Rollback, req)
			if err != nil {
				return err
			}
			if detach {
				return c.show(out, func(w io.Writer) { fmt.Fprintln(w, out.Id) })
			}
			return cl.watch(cmd.Context(), target{
				id: out.Id, fresh: true, limit: time.Duration(limit),
				good: "rolled_back",
			})
		})
	}
	return cmd
}

// rollbackPart takes a zone or wave of the newest deployment in flight back.
func (c *cli) rollbackPart(cmd *cobra.Command, app, group string, req *controlv1.ActRequest) error {
	if err := c.confirm("Take " + strings.TrimSpace(req.Zone+" "+req.Wave) + " of " + app + " back?"); err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetDeployment,
			&controlv1.GetDeploymentRequest{App: app, Group: group, AllTasks: true})
		if err != nil {
			return err
		}
		if err := partOf(out.Deployment, req.Zone, req.Wave); err != nil {
			return err
		}
		req.Deployment = out.Deployment.GetId()
		return c.request(cmd, req)
	})
}

// partOf checks that a deployment is in flight and has such a zone or wave.
func partOf(d *controlv1.Deployment, zone, wave string) error {
	if d.GetTerminal() {
		return &exitError{code: exitRefused, text: fmt.Sprintf("no deployment of %s is in flight: --zone and --wave "+
			"take back a part of one that is; `dctl rollback --app %s` takes everything back", d.App, d.App)}
	}
	zones, waves := map[string]bool{}, map[string]bool{}
	for _, w := range d.GetWaves() {
		waves[w.Name] = true
		zones[w.Zone] = true
	}
	for _, t := range d.GetTasks() {
		zones[t.Zone] = true
	}
	delete(zones, "")
	for _, x := range []struct {
		what, name string
		known      map[string]bool
	}{{"zone", zone, zones}, {"wave", wave, waves}} {
		if x.name != "" && !x.known[x.name] {
			return usage("deployment %s has no %s %q; there are %s", d.GetId(), x.what, x.name,
				strings.Join(slices.Sorted(maps.Keys(x.known)), ", "))
		}
	}
	return nil
}
