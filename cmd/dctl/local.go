package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/memory"
)

func (c *cli) localCommand() *cobra.Command {
	return family("local", "Deploy and check bundles on this host, without a coordinator", c.localDeploy(),
		c.localLint())
}

// localRoot holds the state of local deployments unless --root says otherwise.
const localRoot = "/var/lib/groundswell/local"

// localFlags are the flags of `dctl local deploy`.
type localFlags struct {
	agent.LocalOptions
	kind, onFailure, stop string
	maxRevisions          int
}

func (c *cli) localDeploy() *cobra.Command {
	var f localFlags
	cmd := &cobra.Command{
		Use: "deploy --bundle PATH --app A --group G", Short: "Run a whole deployment on this host", Args: upTo(0),
		Long: `Run a whole deployment on this host, by the code of the agent: stage, stop, install,
start and validate as the bundle's appspec says. Destinations are taken as the
appspec writes them. Exit code 0: succeeded, 1: failed, 2: wrong flags. With
--output json one line on standard output says how it went, whatever happens.`,
		Example: "dctl local deploy --bundle . --app www --group test --root /tmp/www\ndctl local deploy --bundle " +
			"app.tgz --app www --group prod --events BeforeInstall,ApplicationStart",
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Bundle, "bundle", "", "folder or archive to deploy")
	fl.StringVar(&f.kind, "type", "", "directory, zip, tar or tgz (default: what it is)")
	fl.StringVar(&f.App, "app", "", "application")
	fl.StringVar(&f.Group, "group", "", "deployment group")
	fl.StringVar(&f.Root, "root", localRoot, "folder of journal, revisions and logs")
	fl.StringSliceVar(&f.Events, "events", nil, "events to run, in this order (default: all thirteen)")
	fl.StringVar(&f.FileExists, "file-exists-behavior", "",
		"DISALLOW, OVERWRITE or RETAIN, where the appspec does not say")
	fl.StringVar(&f.onFailure, "on-failure", "leave",
		"leave the host as the failure left it, or revert to the former revision")
	fl.StringVar(&f.stop, "stop", "fail", "when a stop script of the running revision fails: fail or continue")
	fl.IntVar(&f.maxRevisions, "max-revisions", 5, "revisions that stay on disk")
	fl.DurationVar(&f.Wait, "wait", 0, "how long to wait for another deployment that uses --root (default: not at all)")
	fl.StringVar(&f.AppSpec, "appspec", "",
		"name of the appspec in the bundle (default appspec.yml, else appspec.yaml)")
	fl.StringVar(&f.Deployment, "deployment-id", "", "id of the deployment (default: made up)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := f.check(cmd)
		if err == nil {
			return c.deployHere(cmd, f)
		}
		return c.refused(err)
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return c.refused(c.flagError(cmd, err)) })
	return cmd
}

// check refuses flags that make no deployment.
func (f *localFlags) check(cmd *cobra.Command) error {
	for _, n := range []struct{ name, value string }{
		{"bundle", f.Bundle},
		{"app", f.App},
		{"group", f.Group},
		{"root", f.Root},
	} {
		if err := need(cmd, n.name, n.value); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"leave", "revert"}, f.onFailure) {
		return usage("--on-failure %q is not legal; use leave or revert", f.onFailure)
	}
	if !slices.Contains([]string{"fail", "continue"}, f.stop) {
		return usage("--stop %q is not legal; use fail or continue", f.stop)
	}
	if f.Wait < 0 {
		return usage("--wait %s is not legal; use a time such as 5m", f.Wait)
	}
	if f.maxRevisions < 1 {
		return usage("--max-revisions %d is not legal; at least 1 stays on disk", f.maxRevisions)
	}
	if f.kind != "" {
		t, err := bundle.ParseType(f.kind)
		if err != nil {
			return usage("--type %q is not legal; use directory, zip, tar or tgz", f.kind)
		}
		f.Type = t
	}
	if len(f.Events) > 0 {
		if _, err := hooks.OrderEvents(f.Events); err != nil {
			return usage("--events: %v", err)
		}
	} else if cmd.Flags().Changed("events") {
		return usage("--events is empty; name at least one event or leave the flag out")
	}
	f.Revert, f.StopFails, f.MaxRevisions = f.onFailure == "revert", f.stop == "fail", f.maxRevisions
	return nil
}

// refused tells a program, too, that the flags are wrong.
func (c *cli) refused(err error) error {
	if !c.wantsJSON() {
		return err
	}
	c.answered = true
	r := agent.LocalResult{
		Result: agent.LocalFailed, Code: hooks.CodeOther, Message: output.Clean(message(err)),
		Events: []agent.LocalEvent{},
	}
	return errors.Join(err, json.NewEncoder(c.out).Encode(r))
}

func (c *cli) deployHere(cmd *cobra.Command, f localFlags) error {
	memory.Limit(100) // a host may have little to spare beside its application
	memory.DropProgram()
	if !c.machine() {
		f.Progress = func(e agent.LocalEvent) { c.drawEvent(e) }
	}
	f.Waiting = func() {
		fmt.Fprintf(c.err, "waiting up to %s for the deployment that uses %s\n", f.Wait, f.Root)
	}
	r, err := agent.DeployLocal(cmd.Context(), f.LocalOptions)
	if err != nil {
		r.Result, r.Code, r.Message = agent.LocalFailed, hooks.CodeOther, err.Error()
		if r.Events == nil {
			r.Events = []agent.LocalEvent{}
		}
	}
	if c.machine() {
		if err := json.NewEncoder(c.out).Encode(r); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	} else {
		drawResult(c.out, r)
	}
	if r.Result != agent.LocalSucceeded {
		return silent(exitOther)
	}
	return nil
}

// drawEvent is one line a lifecycle event that had something to do.
func (c *cli) drawEvent(e agent.LocalEvent) {
	if e.Result == agent.LocalSkipped {
		return
	}
	fmt.Fprintf(c.out, "%-9s %-18s %6.2fs\n", e.Result, e.Event, e.Seconds)
	for _, s := range e.Scripts {
		said := strings.TrimPrefix(s.Message, "script "+s.Script)
		if said == s.Message {
			said = ": " + said
		}
		fmt.Fprintf(c.out, "          %s%s\n", output.Clean(s.Script), output.Clean(said))
		if s.Notice != "" {
			fmt.Fprintf(c.out, "          %s\n", output.Clean(s.Notice))
		}
	}
}

// drawResult is the end of a local deployment for people.
func drawResult(w io.Writer, r agent.LocalResult) {
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", output.Clean(text))
	}
	fmt.Fprintf(w, "%s %s\n", r.Deployment, r.Result)
	if r.Release != "" {
		fmt.Fprintf(w, "  release  %s\n", r.Release)
	}
	if r.Result == agent.LocalSucceeded {
		return
	}
	fmt.Fprintf(w, "  event    %s\n  code     %d (%s)\n  message  %s\n", r.Event, r.Code, r.Code,
		output.Clean(r.Message))
	if r.Script != "" {
		fmt.Fprintf(w, "  script   %s\n", output.Clean(r.Script))
	}
	if len(r.Reverted) > 0 {
		fmt.Fprintln(w, "  went back to the former revision")
	}
	for line := range strings.Lines(r.Log) {
		fmt.Fprintf(w, "  | %s\n", output.Clean(strings.TrimRight(line, "\n")))
	}
}
