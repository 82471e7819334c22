package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) tokenCommand() *cobra.Command {
	return family("token", "Join tokens", c.tokenCreateCommand(), c.tokenListCommand(), c.tokenRevokeCommand())
}

func (c *cli) tokenCreateCommand() *cobra.Command {
	req, ttl := &controlv1.CreateTokenRequest{}, config.Duration(time.Hour)
	var labels []string
	create := &cobra.Command{
		Use: "create", Short: "Make a join token", Args: upTo(0),
		Long: `Make a token with which a host, a coordinator or an operator joins. It is shown
once. Give it by a file or the environment, never on a command line.

With --host a host that the cluster knows comes back as itself, with a new key if
it has lost its own: one whose certificate ended while it was switched off, or that
was installed anew. The name of no known host is what a new one is called.

With --zone and --label a host that joins with the token is that, whatever it says
of itself; without them a new one is what it says. Later words of a host change
nothing until a person approves them (` + "`dctl hosts approve`" + `).`,
		Example: `dctl token create --ttl 1h
dctl token create --host web-7
dctl token create --host web-8 --zone eu-1a --label role=web --label env=prod
dctl token create --role coordinator
dctl token create --uses 50 --ttl 1d > token
dctl token create --role operator --name ann > ann.token`,
	}
	f := create.Flags()
	f.StringVar(&req.Name, "name", "", "the person that a token of role operator is for")
	f.StringVar(&req.Host, "host", "", "the known host that comes back with it, name or id; or the name of a new one")
	f.StringVar(&req.Zone, "zone", "", "the zone of a host that joins with it")
	f.StringSliceVar(&labels, "label", nil, "a label of a host that joins with it, key=value; all of them, if any")
	f.StringVar(&req.Role, "role", string(identity.Agent), "who may join with it: agent, coordinator or operator")
	f.Var(&ttl, "ttl", "how long it is good")
	f.Int32Var(&req.Uses, "uses", 1, "how often it may be used")
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := identity.ParseRole(req.Role); err != nil {
			return usage("--role: %v", err)
		}
		var err error
		if req.Labels, _, err = parseLabels(labels, false); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req.Mutation, req.TtlMs = cl.mutation(""), time.Duration(ttl).Milliseconds()
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.CreateToken, req)
			if err != nil {
				return err
			}
			return c.show(out, func(w io.Writer) {
				fmt.Fprintln(w, out.Token)
				fmt.Fprintf(c.err, "token %s, good until %s, for %s\n", out.Id, output.Moment(out.ExpiresMs),
					output.Count(int(req.Uses), "use"))
				switch {
				case req.Host != "" && out.Returns:
					fmt.Fprintf(c.err, "host %s is known, and comes back as itself with it\n", req.Host)
				case req.Host != "":
					fmt.Fprintf(c.err, "no host %s is known: a new one is called that\n", req.Host)
				}
			})
		})
	}
	return create
}

func (c *cli) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the open join tokens", Args: upTo(0), Example: "dctl token list",
		Long: "Show the open join tokens, who made them and who has joined with them. A secret is\nnever shown again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ListTokens,
					&controlv1.ListTokensRequest{})
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { printTokens(w, out) })
			})
		},
	}
}

func printTokens(w io.Writer, s *controlv1.ListTokensResponse) {
	var rows []string
	for _, t := range s.Tokens {
		left := (time.Duration(t.LeftMs) * time.Millisecond).Round(time.Second)
		whom := []string{t.Name}
		if t.Zone != "" {
			whom = append(whom, "zone="+t.Zone)
		}
		whom = append(whom, pairs(t.Labels)...)
		rows = append(rows, output.Cells(t.Id, t.Role, output.Dash(strings.TrimSpace(strings.Join(whom, " "))), t.Uses,
			left, output.Dash(t.Actor),
			output.Dash(strings.Join(t.UsedBy, " "))))
	}
	_ = output.Table(w, "ID\tROLE\tFOR\tUSES\tLEFT\tMADE BY\tUSED BY", rows) // a broken pipe ends the program anyway
}

func (c *cli) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Close a join token", Args: args("ID"),
		SuggestFor: []string{"delete", "remove", "rm"},
		Example:    "dctl token revoke k3j2h1 -m \"mailed to the wrong person\"",
		Long: `Close a join token, by its id or the beginning of it. Who has joined with it stays;
see ` + "`dctl access revoke` and `dctl hosts revoke`" + `.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.RevokeTokenRequest{Mutation: cl.mutation(""), Id: args[0]}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RevokeToken, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "token %s is closed\n", args[0]) })
			})
		},
	}
}
