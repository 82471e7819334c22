package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// pairs are labels as people write them, in order.
func pairs(labels map[string]string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return out
}

// parseLabels reads key=value, and key- where labels may be taken away.
func parseLabels(args []string, mayRemove bool) (set map[string]string, removed []string, err error) {
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		name, minus := strings.CutSuffix(a, "-")
		switch {
		case ok && k != "":
			if set == nil {
				set = map[string]string{}
			}
			set[k] = v
		case mayRemove && minus && name != "":
			removed = append(removed, name)
		case mayRemove:
			return nil, nil, usage("%q is no label; write key=value, or key- to take one away", a)
		default:
			return nil, nil, usage("%q is no label; write key=value", a)
		}
	}
	return set, removed, nil
}

func (c *cli) hostsLabel() *cobra.Command {
	var name, zone, region string
	cmd := &cobra.Command{
		Use: "label HOST [KEY=VALUE | KEY-]...", Short: "Say what a host is", Args: cobra.MinimumNArgs(1),
		Long: `Say what a host is: its labels, and by flags its zone, region and name. That counts
whatever its agent says, until the next such command. A host joins and leaves groups
by it at once; what runs on it is not touched.`,
		Example: `dctl hosts label web-07 role=web env=prod
dctl hosts label web-07 role- --zone eu-1b`,
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "what it is called from now on")
	f.StringVar(&zone, "zone", "", "its zone")
	f.StringVar(&region, "region", "", "its region")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, removed, err := parseLabels(args[1:], true)
		if err != nil {
			return err
		}
		if len(args) == 1 && name == "" && zone == "" && region == "" {
			return usage("say what host %s is: labels as key=value, or --zone, --region, --name", args[0])
		}
		return c.with(func(cl *client) error {
			h, err := oneHost(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			is := &controlv1.Attributes{Name: h.Name, Zone: h.Zone, Region: h.Region, Labels: maps.Clone(h.Labels)}
			if is.Labels == nil {
				is.Labels = map[string]string{}
			}
			maps.Copy(is.Labels, set)
			for _, k := range removed {
				delete(is.Labels, k)
			}
			for to, value := range map[*string]string{&is.Name: name, &is.Zone: zone, &is.Region: region} {
				if value != "" {
					*to = value
				}
			}
			return c.setAttributes(cmd.Context(), cl, h, is)
		})
	}
	return cmd
}

func (c *cli) hostsApprove() *cobra.Command {
	return &cobra.Command{
		Use: "approve HOST", Short: "Take a host at its word", Args: args("HOST"),
		Long: `Take what a host's agent says of itself, its name, zone, region and labels, for what
it is. It is shown and asked about first: a host that says role=db of itself gets the
database's releases with it.`,
		Example: "dctl hosts show web-07\ndctl hosts approve web-07",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				h, err := oneHost(cmd.Context(), cl, args[0])
				if err != nil {
					return err
				}
				if h.Says == nil {
					fmt.Fprintf(c.err, "host %s says of itself what is written down; nothing to approve\n", h.Name)
					return nil
				}
				if err := c.confirm(output.Line(fmt.Sprintf("Host %s says: %s. Approve?", h.Name,
					strings.Join(h.Differences, ", ")))); err != nil {
					return err
				}
				return c.setAttributes(cmd.Context(), cl, h, h.Says)
			})
		},
	}
}

func oneHost(ctx context.Context, cl *client, name string) (*controlv1.Host, error) {
	out, err := call(ctx, cl, controlv1.ControlServiceClient.GetHost, &controlv1.GetHostRequest{Host: name})
	return out.GetHost(), err
}

// setAttributes changes what was read; somebody else's change in between is an
// error, never lost.
func (c *cli) setAttributes(ctx context.Context, cl *client, h *controlv1.Host, is *controlv1.Attributes) error {
	out, err := call(ctx, cl, controlv1.ControlServiceClient.SetHostAttributes, &controlv1.SetHostAttributesRequest{
		Mutation: cl.mutation(""), Host: h.Id, Attributes: is, Approved: h.Approved,
	})
	if err != nil {
		return err
	}
	return c.show(out, func(w io.Writer) {
		fmt.Fprintln(w, output.Line(fmt.Sprintf("%s is in zone %s, labels: %s", is.Name, output.Dash(is.Zone),
			output.Dash(strings.Join(pairs(is.Labels), " ")))))
	})
}

func (c *cli) hostsSplit() *cobra.Command {
	var keep string
	cmd := &cobra.Command{
		Use: "split HOST", Short: "Make two hosts of two machines with one identity", Args: args("HOST"),
		Long: `A machine that was made from the image or the disk of another has its key too. As
soon as both live the host is quarantined and neither gets work: a script could run
twice. split lets the one keep the identity whose address --keep names; the other
becomes a host of its own with the same labels, by itself. If one of them is a thief: ` + "`dctl hosts revoke`" + ` instead.`,
		Example: "dctl hosts show web-07\ndctl hosts split web-07 --keep 10.0.0.7:51200",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.SplitHostRequest{Mutation: cl.mutation(""), Host: args[0], Keep: keep}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.SplitHost, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) {
					other := "the other one"
					if out.Split != "" {
						other = "the one at " + out.Split
					}
					fmt.Fprintln(w, output.Line(fmt.Sprintf("the machine at %s keeps %s; %s becomes a host of its own",
						out.Kept, args[0], other)))
				})
			})
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "the address of the machine that keeps the identity")
	return cmd
}
