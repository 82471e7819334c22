package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) clusterCACommand() *cobra.Command {
	return family("ca", "The cluster's certificate authority, and how it is replaced",
		c.caStatusCommand(), c.caRotateCommand(), c.caRetireCommand())
}

func (c *cli) caStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show which CA issues, and who is behind", Args: upTo(0),
		Example: "dctl cluster ca status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ClusterStatus,
					&controlv1.ClusterStatusRequest{})
				if err != nil {
					return err
				}
				view := object{
					{"issues", out.Ca},
					{"next", out.NextCa},
					{"ends_ms", out.CaEndsMs},
					{"behind", out.CaBehind},
					{"away", out.CaAway},
				}
				return c.show(view, func(w io.Writer) { printCA(w, out) })
			})
		},
	}
}

// printCA says how far a replacement is, and what comes next.
func printCA(w io.Writer, s *controlv1.ClusterStatusResponse) {
	fmt.Fprintf(w, "CA %s issues; its certificate: %s\n", output.Line(s.Ca), life(s.CaEndsMs))
	behind := output.Line(strings.Join(s.CaBehind, ", "))
	switch {
	case s.NextCa == "":
		fmt.Fprintln(w, "no other is trusted")
	case s.NextCa != s.Ca:
		fmt.Fprintf(w, "CA %s is trusted too, and issues once every coordinator has its key\n", output.Line(s.NextCa))
		if behind != "" {
			fmt.Fprintf(w, "waits for %s\n", behind)
		}
		fmt.Fprintln(w, "to give it up: `dctl cluster ca retire --give-up`")
	case behind != "":
		fmt.Fprintf(w, "its predecessor is trusted still; these have nothing of the new one: %s\n", behind)
	default:
		fmt.Fprintln(w,
			"its predecessor is trusted still, and nobody who is connected needs it: `dctl cluster ca retire`")
	}
	if s.NextCa == s.Ca && s.CaAway > 0 {
		fmt.Fprintf(w, "%s away: who does not come back before the predecessor is retired needs a new token\n",
			output.Count(int(s.CaAway), "host"))
	}
}

func (c *cli) caRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Bring in a new CA while the cluster runs", Args: upTo(0),
		Long: `Bring in a new CA. Both are trusted from then on; once every coordinator has the new
one's key it issues, and coordinators, agents and people get certificates of it by
themselves. Nothing is interrupted. The old one is trusted until
` + "`dctl cluster ca retire`" + `. Do it when a coordinator fell into wrong hands (remove that
one first: ` + "`dctl cluster remove`" + `), or before the CA's own ten years have passed.`,
		Example: `dctl cluster ca rotate -m "c3 was stolen"
dctl cluster ca status`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.RotateCARequest{Mutation: cl.mutation("")}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RotateCA, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) {
					fmt.Fprintf(w, "CA %s is being brought in; see `dctl cluster ca status`\n", output.Line(out.Id))
				})
			})
		},
	}
}

func (c *cli) caRetireCommand() *cobra.Command {
	var force, giveUp bool
	cmd := &cobra.Command{
		Use: "retire", Short: "End the trust in the CA that does not issue", Args: upTo(0),
		SuggestFor: []string{"abandon", "remove", "delete"},
		Long: `End the trust in the old CA once the new one issues; with --give-up, in a new one that
does not issue yet. Certificates and join tokens of it are good for nothing then. It is
refused while a coordinator or a connected host has nothing else; --force leaves them
behind: a host comes back as itself with ` + "`dctl token create --host NAME`" + `, a person with
` + "`dctl token create --role operator --name NAME`" + `. Take a backup afterwards
(` + "`dctl cluster backup`" + `, and ca.key of one coordinator): one of before restores nothing.`,
		Example: `dctl cluster ca retire
dctl cluster ca retire --force -m "web-17 is off for good"`,
	}
	cmd.Flags().BoolVar(&force, "force", false, "though some have nothing but certificates of it")
	cmd.Flags().BoolVar(&giveUp, "give-up", false, "end the trust in the new CA, which does not issue yet")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		what := "this ends the trust in the CA that does not issue, for good"
		if err := c.confirmHard(what, "Retire it?"); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			if err := c.upToDate(cmd, cl); err != nil {
				return err
			}
			req := &controlv1.RetireCARequest{Mutation: cl.mutation(""), Force: force, GiveUp: giveUp}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RetireCA, req)
			if err != nil {
				return err
			}
			return c.show(out, func(w io.Writer) {
				fmt.Fprintf(w, "CA %s is trusted no more, CA %s issues; save ca.key and a backup anew\n",
					output.Line(out.Id), output.Line(out.Issues))
				fmt.Fprintln(w, "look at who came in meanwhile: `dctl access list`, `dctl token list`")
			})
		})
	}
	return cmd
}

// upToDate makes sure that who retires a CA has a certificate of the other one.
func (c *cli) upToDate(cmd *cobra.Command, cl *client) error {
	_, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ClusterStatus, &controlv1.ClusterStatusRequest{})
	if err != nil || !cl.cred.Outdated() {
		return err
	}
	if err := cl.renew(cmd.Context()); err != nil {
		return fmt.Errorf("renew your own credential before its CA is retired: %w", err)
	}
	return cl.failOver(nil)
}

func (c *cli) ringCommand() *cobra.Command {
	rotate := &cobra.Command{
		Use: "rotate", Short: "Replace the key of the gossip ring", Args: upTo(0),
		Long: `Replace the key of the gossip ring while the cluster runs. The new one is used once
every coordinator has it and agents had time to take it; the former one is taken for
another minute. A host that was off meanwhile gets it with its next session. It is
done by itself when a host is revoked or a coordinator removed.`,
		Example: "dctl cluster ring rotate -m \"an image with a key was published\"",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.RotateRingKeyRequest{Mutation: cl.mutation("")}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RotateRingKey, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) {
					fmt.Fprintln(w, "the ring's key is being replaced; `dctl cluster status` says while it is")
				})
			})
		},
	}
	return family("ring", "The key of the gossip ring", rotate)
}
