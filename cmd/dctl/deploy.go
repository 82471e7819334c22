package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// deployFlags are those of deploy and plan.
type deployFlags struct {
	app, group, rev, config string
	redeploy, forceBad      bool
	preempt, skipOffline    bool
	emergency               bool
	fixes, only, exclude    []string
	ifIndex                 uint64

	dryRun, detach, exitCode bool
	limit                    config.Duration
	requestID                string
}

func (f *deployFlags) common(c *cli, cmd *cobra.Command) {
	c.appFlag(cmd, &f.app)
	cmd.Flags().StringVar(&f.group, "group", "", "deployment group, where the application has several")
	cmd.Flags().StringVar(&f.rev, "rev", "",
		"revision: name, prefix of at least 7, @current (repairs hosts with edited files), @previous or @stable "+
			"(default HEAD of a clean git checkout)")
	cmd.Flags().StringVar(&f.config, "config", "", "built-in deployment config instead of the group's own")
	cmd.Flags().BoolVar(&f.redeploy, "redeploy", false, "also replace the revision on hosts that run it already")
	cmd.Flags().BoolVar(&f.forceBad, "force-bad", false, "deploy a revision that is marked bad; needs --reason")
	cmd.Flags().StringSliceVar(&f.fixes, "fixes", nil,
		"revision that this one repairs: its rollback does not take this one back")
	cmd.Flags().BoolVar(&f.preempt, "preempt", false, "take over every older deployment in flight, once approved")
	cmd.Flags().BoolVar(&f.emergency, "emergency", false,
		"go past windows, freezes and approvals, never past a floor or a failed gate; everybody sees it; needs --reason")
	cmd.Flags().StringSliceVar(&f.only, "only", nil,
		"only these hosts: NAME, NAME*, zone=ZONE or label=VALUE; the others stay as they are")
	cmd.Flags().StringSliceVar(&f.exclude, "exclude", nil, "all but these hosts")
	cmd.Flags().BoolVar(&f.skipOffline, "skip-offline", false,
		"leave out hosts that are unreachable now, and catch up with them later")
	cmd.Flags().Uint64Var(&f.ifIndex, "if-index", 0, "refuse if the group changed after this index, which plan prints")
}

func (c *cli) deployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use: "deploy --app APP [--rev REVISION]", Short: "Deploy a revision and watch it", Args: upTo(0),
		Long: `Deploy a revision and watch it to its end.

Exit codes: 0 done; 1 anything else, such as no answer; 2 usage or validation; 3
failed and halted, or waiting for a decision; 4 not allowed; 5 failed and rolled
back clean; 6 rollback failed; 7 refused or rejected; 8 --wait-timeout passed, the
deployment goes on; 9 it waits for an approval, which ends the watch of a program;
130 detached.`,
		Example: `dctl deploy --app www --rev 9be01d7
dctl deploy --app www --group prod --config one-at-a-time --reason "fix login"
dctl deploy --app www --rev 9be01d7 --dry-run`,
	}
	f.common(c, cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only show the plan")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "print the id and do not watch")
	limitFlag(cmd, &f.limit)
	cmd.Flags().StringVar(&f.requestID, "request-id", "",
		"id of this request: the same id deploys once (default: a new one)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.deploy(cmd, &f) }
	return cmd
}

func (c *cli) deploy(cmd *cobra.Command, f *deployFlags) error {
	if f.dryRun {
		return c.plan(cmd, f)
	}
	req, err := c.deployRequest(cmd, f)
	if err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		req.Mutation = cl.mutation(f.requestID)
		ctx := cmd.Context()
		created, err := call(ctx, cl, controlv1.ControlServiceClient.CreateDeployment, req)
		if err != nil {
			return maybeCreated(err, req.Mutation.RequestId)
		}
		if f.detach {
			return c.created(created)
		}
		return cl.watch(ctx, target{id: created.Id, fresh: true, limit: time.Duration(f.limit)})
	})
}

// maybeCreated adds what to do when nobody knows whether a request was made.
func maybeCreated(err error, request string) error {
	if exitCode(err) != exitOther && exitCode(err) != exitDetached {
		return err
	}
	return &exitError{code: exitCode(err), text: message(err) + fmt.Sprintf(
		"\nthe request may have been made; repeat it with --request-id %s to have it made once", request)}
}

func (c *cli) created(r *controlv1.CreateDeploymentResponse) error {
	return c.show(r, func(w io.Writer) { fmt.Fprintln(w, r.Id) })
}

// deployRequest turns flags into a request without identity.
func (c *cli) deployRequest(cmd *cobra.Command, f *deployFlags) (*controlv1.CreateDeploymentRequest, error) {
	if err := need(cmd, "app", f.app); err != nil {
		return nil, err
	}
	if f.forceBad && c.flags.reason == "" {
		return nil, usage("--force-bad deploys a revision that was rolled back; say why with --reason")
	}
	if f.emergency && c.flags.reason == "" {
		return nil, usage("--emergency goes past what others have set up; say why with --reason, everybody is shown it")
	}
	if f.rev == "" {
		head, err := gitHead(cmd.Context(), ".")
		if err != nil {
			return nil, usage("--rev is missing, and there is no commit to take: %v", err)
		}
		f.rev = head
	}
	return &controlv1.CreateDeploymentRequest{
		App: f.app, Group: f.group, Revision: f.rev, Config: f.config, Redeploy: f.redeploy, ForceBad: f.forceBad,
		IfIndex: f.ifIndex,
		Fixes:   f.fixes, Preempt: f.preempt, Emergency: f.emergency, Only: f.only, Exclude: f.exclude, SkipOffline: f.skipOffline,
	}, nil
}

// appFlag adds --app with completion.
func (c *cli) appFlag(cmd *cobra.Command, app *string) {
	cmd.Flags().StringVar(app, "app", "", "application")
	_ = cmd.RegisterFlagCompletionFunc("app", c.completeApps) // fails only for a flag that does not exist
}

// completeApps asks the cluster for names, briefly: a shell waits for it.
func (c *cli) completeApps(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if c.fromEnvironment(cmd.InheritedFlags()) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	var names []string
	_ = c.with(func(cl *client) error { // without an answer there is nothing to offer
		out, err := call(ctx, cl, controlv1.ControlServiceClient.ListApps, &controlv1.ListAppsRequest{})
		for _, a := range out.GetApps() {
			names = append(names, a.Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
