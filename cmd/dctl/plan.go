package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) planCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use: "plan --app APP [--rev REVISION]", Short: "Show what a deployment would do", Args: upTo(0),
		Long: "Show what a deployment would do now: waves with hosts in order, capacity, gates,\nwhat would hold it, " +
			"and an index for `dctl deploy --if-index`. It changes nothing.",
		Example: `dctl plan --app www --rev 9be01d7
dctl plan --app www --exit-code; test $? = 10 && echo there is something to do`,
	}
	f.common(c, cmd)
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "exit 10 if some host would change")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.plan(cmd, &f) }
	return cmd
}

func (c *cli) plan(cmd *cobra.Command, f *deployFlags) error {
	req, err := c.deployRequest(cmd, f)
	if err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		p, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.PlanDeployment,
			&controlv1.PlanDeploymentRequest{Deployment: req})
		if err != nil {
			return err
		}
		if err := c.show(p, func(w io.Writer) { printPlan(w, p) }); err != nil {
			return err
		}
		if f.exitCode && p.Changes {
			return silent(exitChanges)
		}
		return nil
	})
}

func printPlan(w io.Writer, p *controlv1.PlanDeploymentResponse) {
	from := "nothing"
	if p.From != "" {
		from = output.ShortName(p.From)
	}
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s: %s → %s", p.App, p.Group, from, output.ShortName(p.Revision))))
	var rows []string
	for i, v := range p.Waves {
		rows = append(rows, output.Cells(i+1, v.Name, len(v.Hosts), "+"+output.Span(v.StartsMs), planBake(v), v.Budget,
			planGates(v), output.Shorten(v.Hosts)))
	}
	// a broken pipe ends the program anyway
	_ = output.Table(w, "WAVE\tNAME\tHOSTS\tSTARTS\tBAKE\tMAY FAIL\tGATES\tORDER", rows)
	said := func(title string, lines []string) {
		for _, l := range lines {
			fmt.Fprintf(w, "%s: %s\n", title, output.Line(l))
		}
	}
	said("capacity", p.Capacity)
	said("blast radius", p.Exposure)
	said("note", p.Notes)
	said("hold", p.Holds)
	if !p.Changes {
		fmt.Fprintln(w, "nothing to do: every host runs the revision")
	}
	fmt.Fprintf(w, "at most %s at a time, about %s; go on if nothing changed with --if-index %d\n",
		output.Count(int(p.Concurrent), "host"), output.Span(p.EstimateMs), p.Index)
}

// planGates names what is asked before a wave, marked as such, and while it bakes.
func planGates(v *controlv1.PlannedWave) string {
	var out []string
	for _, g := range v.PreGates {
		out = append(out, "first "+g)
	}
	return strings.Join(append(out, v.Gates...), ",")
}

func planBake(v *controlv1.PlannedWave) string {
	if v.BakeMs == 0 {
		return ""
	}
	return output.Span(v.BakeMs)
}
