package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) accessCommand() *cobra.Command {
	return family("access", "Who may do what, and who is who",
		c.accessApplyCommand(), c.accessShowCommand(), c.accessDiffCommand(), c.accessTestCommand(),
		c.accessExplainCommand(), c.accessListCommand(), c.accessConfirmCommand(), c.accessRevokeCommand())
}

func (c *cli) accessListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the operators", Args: upTo(0), Example: "dctl access list",
		Long: `Show the operators: who made whom, who vouches, and who counts as whom where two
people are asked for. An operator counts as the person who made its token until
somebody else has confirmed it. Break-glass credentials that were used follow.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ListPeople,
					&controlv1.ListPeopleRequest{})
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { printPeople(w, out) })
			})
		},
	}
}

func printPeople(w io.Writer, s *controlv1.ListPeopleResponse) {
	var rows []string
	for _, p := range s.People {
		state := "good"
		switch {
		case p.RevokedBy != "":
			state = "REVOKED by " + p.RevokedBy
		case p.BreakGlass:
			state = "BREAK-GLASS, first used at " + p.UsedAt
		}
		rows = append(rows, output.Cells(p.Name, output.Dash(p.CountsAs), output.Dash(p.MadeBy),
			output.Dash(p.ConfirmedBy),
			output.Moment(p.SinceMs), state))
	}
	// a broken pipe ends the program anyway
	_ = output.Table(w, "NAME\tCOUNTS AS\tMADE BY\tCONFIRMED BY\tSINCE\tSTATE", rows)
}

func (c *cli) accessConfirmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "confirm NAME", Short: "Vouch that an operator is a person of their own", Args: args("NAME"),
		Example: "dctl access confirm bob -m \"sits next to me\"",
		Long: `Vouch that an operator is a person of their own, so that approvals by them and by
who made their token count as two. Who counts as the same person cannot; a
break-glass credential can (see ` + "`dcoord operator --help`" + `).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.ConfirmPersonRequest{Mutation: cl.mutation(""), Name: args[0]}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ConfirmPerson, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) {
					fmt.Fprintf(w, "%s counts as a person of their own\n",
						args[0])
				})
			})
		},
	}
}

func (c *cli) accessRevokeCommand() *cobra.Command {
	unknown := false
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "End an operator's credential", Args: args("NAME"),
		SuggestFor: []string{"delete", "remove", "rm"},
		Example:    "dctl access revoke ann -m \"laptop stolen\"",
		Long: `End an operator's credential, at every coordinator and at once: watches that run
end too. The name may be given to a new key with a token afterwards; the old key
never comes back. With --unknown also somebody who is not in ` + "`dctl access list`" + `, of
whom a restored backup does not know.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.revoke(cmd, "operator", args[0], unknown)
		},
	}
	cmd.Flags().BoolVar(&unknown, "unknown", false, "also somebody whom the cluster does not know")
	return cmd
}

// revoke ends an identity.
func (c *cli) revoke(cmd *cobra.Command, role, name string, unknown bool) error {
	return c.with(func(cl *client) error {
		req := &controlv1.RevokeIdentityRequest{Mutation: cl.mutation(""), Role: role, Name: name, Unknown: unknown}
		out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RevokeIdentity, req)
		if err != nil {
			return err
		}
		return c.show(out, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s is revoked (%s)\n", role, name,
				output.Line(out.Identity))
			if out.Tokens > 0 {
				fmt.Fprintf(w, "%d open join tokens that %s made are closed\n", out.Tokens, name)
			}
			if len(out.Made) > 0 {
				fmt.Fprintf(w, "operators that %s made stay: %s\n", name, output.Line(strings.Join(out.Made, ", ")))
			}
			if out.Counts {
				fmt.Fprintf(w, "it still counts among the hosts of its groups, as one that does not serve: `dctl "+
					"hosts forget %s` takes it out\n", name)
			}
		})
	})
}
