package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/cmd/dctl/watch"
	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) statusCommand() *cobra.Command {
	var app, group string
	var follow bool
	cmd := &cobra.Command{
		Use: "status [ID]", Short: "Show a deployment, or what goes on everywhere", Args: upTo(1),
		Long: `Without an argument: the deployments in flight, and what each application runs.
With an id, or --app for the newest of an application: waves, hosts and what it waits
for. A host is granted while it works under a permit, and settled once it runs the
revision and passed its checks; a wave is sealed once it is settled, baked and
answered for by its gates, and is never done again.`,
		Example: `dctl status
dctl status 01JD4Z
dctl status --app www --watch`,
	}
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&group, "group", "", "deployment group")
	cmd.Flags().BoolVar(&follow, "watch", false, "go on watching")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := strings.Join(args, "")
		return c.with(func(cl *client) error {
			if id == "" && app == "" {
				return cl.overview(cmd)
			}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetDeployment,
				&controlv1.GetDeploymentRequest{Id: id, App: app, Group: group})
			if err != nil {
				return err
			}
			if follow {
				return cl.watch(cmd.Context(), target{id: out.Deployment.GetId()})
			}
			return c.show(out, func(w io.Writer) { printDeployment(w, out) })
		})
	}
	return cmd
}

func (c *cli) watchCommand() *cobra.Command {
	var limit config.Duration
	cmd := &cobra.Command{
		Use: "watch ID", Short: "Follow a deployment to its end", Args: args("ID"),
		Long:    "Follow a deployment to its end, and exit by its result as `dctl deploy` does.",
		Example: "dctl watch 01JD4Z --wait-timeout 30m",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetDeployment,
					&controlv1.GetDeploymentRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return cl.watch(cmd.Context(), target{id: out.Deployment.GetId(), limit: time.Duration(limit)})
			})
		},
	}
	limitFlag(cmd, &limit)
	return cmd
}

// overview shows what is in flight and what every group runs.
func (cl *client) overview(cmd *cobra.Command) error {
	c, ctx := cl.cli, cmd.Context()
	live, err := call(ctx, cl, controlv1.ControlServiceClient.ListDeployments,
		&controlv1.ListDeploymentsRequest{Live: true})
	if err != nil {
		return err
	}
	apps, err := call(ctx, cl, controlv1.ControlServiceClient.ListApps, &controlv1.ListAppsRequest{})
	if err != nil {
		return err
	}
	if c.machine() {
		return c.emit(object{
			{"deployments", messages(live.Deployments)},
			{"apps", messages(apps.Apps)},
			{"freezes", messages(apps.Freezes)},
		})
	}
	for _, f := range apps.Freezes {
		fmt.Fprintln(c.out, output.Line(freezeText(f)))
	}
	for _, d := range live.Deployments {
		printSummary(c.out, d, d.Cause)
	}
	if len(live.Deployments) == 0 {
		fmt.Fprintln(c.out, "no deployment is in flight")
	}
	fmt.Fprintln(c.out)
	err = output.Table(c.out, appHead, appRows(apps.Apps))
	printEdited(c.out, apps.Apps)
	return err
}

// printSummary is a deployment in a few lines, with its cause in these words.
func printSummary(w io.Writer, d *controlv1.Deployment, cause string) {
	fmt.Fprintln(w, watch.Title(d))
	fmt.Fprintf(w, "  %s, %s, elapsed %s\n", output.Line(watch.SettledText(d)), output.Count(len(d.Waves), "wave"),
		output.Clock(d.ElapsedMs))
	for _, h := range d.Holds {
		if d.Cause != "" {
			h = strings.TrimSuffix(h, ": "+d.Cause) // it comes next
		}
		fmt.Fprintln(w, "  "+output.Line(h))
	}
	if cause != "" {
		fmt.Fprintln(w, "  cause: "+output.Line(cause))
	}
	for _, a := range d.Approvals {
		fmt.Fprintln(w, "  "+output.Line(fmt.Sprintf("gate %s approved by %s at %s %s", a.Gate, a.Actor,
			output.Moment(a.AtMs), a.Reason)))
	}
	if len(d.Fixes) > 0 {
		fmt.Fprintln(w, "  repairs "+output.Line(strings.Join(d.Fixes, ", ")))
	}
	if d.Emergency != "" {
		fmt.Fprintln(w, "  EMERGENCY past windows, freezes and approvals "+output.Line(d.Emergency))
	}
	if d.TakenBy != "" {
		fmt.Fprintln(w, "  taken over by "+output.Line(d.TakenBy))
	}
	if d.Suspect != "" {
		fmt.Fprintln(w, "  SUSPECT: "+output.Line(d.Suspect))
	}
}

// printAnswers shows what gates said: the question as it was asked, the value,
// the limit and how many samples it rests on.
func printAnswers(w io.Writer, d *controlv1.Deployment) {
	var rows []string
	for _, v := range d.Waves {
		for _, a := range v.Answers {
			rows = append(rows, output.Cells(v.Name, a.Gate, a.Key, a.Answer, a.Value, a.Threshold, a.Samples,
				output.Moment(a.ToMs), a.Question, a.Detail))
		}
		if v.RehearsedMs > 0 {
			fmt.Fprintln(w, output.Line(fmt.Sprintf("%s: a rollback of one host took %s (rehearsed)", v.Name,
				output.Span(v.RehearsedMs))))
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		// a broken pipe ends the program anyway
		_ = output.Table(w, "WAVE\tGATE\tOF\tANSWER\tVALUE\tLIMIT\tSAMPLES\tAT\tQUESTION\tDETAIL", rows)
	}
}

func printDeployment(w io.Writer, r *controlv1.GetDeploymentResponse) {
	d := r.Deployment
	p := watch.Of(d, r.Records)
	p.Shown = allShown(d, p.Failed()) // by the table of hosts
	cause := d.Cause
	if p.Shown {
		cause = p.Short(cause)
	}
	printSummary(w, d, cause)
	var rows []string
	for _, v := range d.Waves {
		rows = append(rows, output.Cells(v.Name, v.Zone, v.Status, fmt.Sprintf("%d/%d", v.Settled, v.Total), v.Failed,
			v.Budget, waveBake(v)))
	}
	// a broken pipe ends the program anyway
	_ = output.Table(w, "WAVE\tZONE\tSTATUS\tSETTLED\tFAILED\tMAY FAIL\tBAKE", rows)
	printAnswers(w, d)
	printTasks(w, d)
	switch {
	case watch.Over(d) && verdict(d) != exitDone:
		fmt.Fprintln(w)
		p.Report(w)
	case len(watch.Unreached(d)) > 0, d.Behind != nil:
		fmt.Fprintln(w)
		watch.NextSteps(w, d, p.Failed())
	}
}

// allShown reports whether the failures are those of tasks that are listed.
func allShown(d *controlv1.Deployment, failed []*controlv1.Record) bool {
	listed := map[string]bool{}
	for _, t := range d.Tasks {
		listed[t.Name] = t.Failure != nil
	}
	for _, r := range failed {
		if !listed[r.Host] {
			return false
		}
	}
	return true
}

func waveBake(v *controlv1.Wave) string {
	switch {
	case v.BakeMs == 0:
		return ""
	case v.Status == "baking":
		return output.Span(v.BakeLeftMs) + " of " + output.Span(v.BakeMs) + " left"
	}
	return output.Span(v.BakeMs)
}

func printTasks(w io.Writer, d *controlv1.Deployment) {
	if len(d.Tasks) == 0 {
		return
	}
	var rows []string
	for _, t := range d.Tasks {
		rows = append(rows, output.Cells(t.Name, t.Zone, waveName(d, t), t.Status, t.Health, watch.TaskText(t)))
	}
	fmt.Fprintln(w)
	_ = output.Table(w, "HOST\tZONE\tWAVE\tSTATUS\tHEALTH\tWHAT", rows) // a broken pipe ends the program anyway
}

func waveName(d *controlv1.Deployment, t *controlv1.Task) string {
	if i := int(t.Wave); i >= 0 && i < len(d.Waves) {
		return d.Waves[i].Name
	}
	return ""
}

// statusText is the status in a list: that it goes back, and what was seen after
// a success, belong to it.
func statusText(d *controlv1.Deployment) string {
	switch {
	case d.Suspect != "":
		return "SUSPECT"
	case d.Inverse && d.Status == "succeeded":
		return "rolled back to"
	}
	return d.Status
}

func (c *cli) historyCommand() *cobra.Command {
	var app, group string
	var limit int32
	cmd := &cobra.Command{
		Use: "history", Short: "List past deployments", Args: upTo(0),
		Example: "dctl history --app www --limit 5",
	}
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&group, "group", "", "deployment group")
	cmd.Flags().Int32VarP(&limit, "limit", "n", 20, "how many")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.with(func(cl *client) error {
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ListDeployments,
				&controlv1.ListDeploymentsRequest{App: app, Group: group, Limit: limit})
			if err != nil {
				return err
			}
			if out.Incomplete != "" {
				fmt.Fprintln(c.err, "warning:", output.Line(out.Incomplete))
			}
			if c.machine() {
				return list(c, "deployments", out.Deployments, "", nil)
			}
			return printHistory(c.out, out.Deployments, c.columns())
		})
	}
	return cmd
}

// printHistory is a table, with the reason of each deployment below it, cut to
// the width of the terminal unless that is 0. Groups are told apart only where
// they differ.
func printHistory(w io.Writer, all []*controlv1.Deployment, width int) error {
	groups := map[string]bool{}
	for _, d := range all {
		groups[d.Group] = true
	}
	var rows []string
	for _, d := range all {
		app := d.App
		if len(groups) > 1 {
			app += "/" + d.Group
		}
		rows = append(rows, output.Cells(output.ShortID(d.Id), app, output.ShortName(d.Revision), statusText(d),
			output.Minute(d.CreatedMs), output.Clock(d.ElapsedMs), d.Actor))
	}
	var table, text strings.Builder
	if err := output.Table(&table, "ID\tAPP\tREVISION\tSTATUS\tCREATED UTC\tTOOK\tBY", rows); err != nil {
		return err
	}
	lines := strings.SplitAfter(table.String(), "\n") // the head, then a line each
	text.WriteString(lines[0])
	for i, d := range all {
		text.WriteString(lines[i+1])
		if why := why(d); why != "" {
			text.WriteString("  " + output.Line(why) + "\n")
		}
	}
	return output.Cut(w, text.String(), width)
}

// why is the reason that was given for a deployment, or for taking it back; that
// it was asked for by whom the row names says nothing.
func why(d *controlv1.Deployment) string {
	if d.Emergency != "" {
		return "EMERGENCY " + d.Emergency
	}
	if d.Reason == "" && d.Asked != "" && d.Asked != "by "+d.Actor {
		return "as asked " + d.Asked // "by ann: why"
	}
	return d.Reason
}
