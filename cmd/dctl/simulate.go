package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/cmd/dctl/watch"
	"github.com/groundswell/groundswell/deploy/spec"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) simulateCommand() *cobra.Command {
	var f deployFlags
	var fail []string
	var events bool
	cmd := &cobra.Command{
		Use: "simulate --app APP [--rev REVISION] [--fail " +
			"WHAT]...", Short: "Play a deployment before it is made", Args: upTo(0),
		Long: `Play a deployment in a virtual world that begins as the fleet is now, by the code
that decides real deployments: what happens if a host, a zone or a gate fails.
Approvals are given and windows open at once. It changes nothing.

Exit codes: as of the deployment that was played.`,
		Example: `dctl simulate --app www --rev 9be01d7
dctl simulate --app www --rev 9be01d7 --fail zone=eu-1b
dctl simulate --app www --rev 9be01d7 --fail host=www-03 --fail gate=errors --events`,
	}
	f.common(c, cmd)
	cmd.Flags().StringArrayVar(&fail, "fail", nil, "what fails: host=NAME, zone=NAME or gate=NAME; may be repeated")
	cmd.Flags().BoolVar(&events, "events", false, "also print every event")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req, err := c.deployRequest(cmd, &f)
		if err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.SimulateDeployment,
				&controlv1.SimulateDeploymentRequest{Deployment: req, Fail: fail, Seed: 1})
			if err != nil {
				return err
			}
			if err := c.show(out, func(w io.Writer) { printSimulation(w, out, events) }); err != nil {
				return err
			}
			return silent(verdict(&controlv1.Deployment{
				Status: out.Status, Terminal: out.Status != "paused",
				Decision: out.Status == "paused",
			}))
		})
	}
	return cmd
}

func printSimulation(w io.Writer, s *controlv1.SimulateDeploymentResponse, events bool) {
	for _, e := range s.Events {
		if events {
			fmt.Fprintln(w, output.Line(e))
		}
	}
	fmt.Fprintf(w, "ends %s after %s\n", s.Status, output.Span(s.TookMs))
	if s.Cause != "" {
		fmt.Fprintln(w, "cause: "+output.Line(s.Cause))
	}
	for _, h := range s.Holds {
		fmt.Fprintln(w, "hold: "+output.Line(h))
	}
	fmt.Fprintf(w, "at worst %d of %d hosts served, and %d ran the revision\n", s.LowestServing, s.Hosts, s.MostExposed)
}

func (c *cli) replayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "replay ID", Short: "Show a past deployment event by event", Args: args("ID"),
		Long: `Show everything that the log holds of a deployment, in order: what people asked
for, what was decided and on what evidence, and what every host answered.`,
		Example: "dctl replay 01JD4Z\ndctl replay 01JD4Z --output jsonl | grep '\"subject\":\"gate\"'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetDeployment,
					&controlv1.GetDeploymentRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if c.flags.output == outputJSONL {
					for _, r := range out.Records {
						if err := c.emit(r); err != nil {
							return err
						}
					}
					return nil
				}
				return c.show(out, func(w io.Writer) { printReplay(w, out) })
			})
		},
	}
}

func printReplay(w io.Writer, r *controlv1.GetDeploymentResponse) {
	fmt.Fprintln(w, watch.Header(r.Deployment))
	if len(r.Records) == 0 {
		fmt.Fprintln(w, "its history is gone: only the newest deployments of a group keep it")
	}
	for _, x := range r.Records {
		where := strings.Join(strings.Fields(x.Wave+" "+x.Host), " ")
		text := x.Text
		if x.Failure != nil {
			text = strings.TrimSpace(text + " " + watch.FailureText(x))
		}
		fmt.Fprintf(w, "%8s  #%-6d %-10s %-22s %s  %s\n", output.Clock(x.ElapsedMs), x.Index, x.Subject,
			clip(output.Line(where), 22), output.Line(x.To), output.Line(text))
	}
}

// clip shortens a text in the middle, where names differ least.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n/2-1] + "…" + text[len(text)-n/2:]
}

func (c *cli) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of deploy.yaml", Args: upTo(0),
		Long: "Print the JSON Schema of deploy.yaml, for editors and CI. `dctl apps lint` checks more:\nwhat " +
			"cannot be kept, not only what is spelled wrong.",
		Example: "dctl schema > deploy.schema.json",
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(append(spec.Schema(), '\n'))
			return err
		},
	}
}
