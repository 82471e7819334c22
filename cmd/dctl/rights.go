package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// longestAccess is more than a coordinator takes, which says so with the limit.
const longestAccess = 1 << 20

// readAccess reads an access.yaml, or standard input for "-".
func (c *cli) readAccess(path string) ([]byte, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usage("read the access document: %v", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, longestAccess))
	if err != nil {
		return nil, usage("read the access document %s: %v", path, err)
	}
	return b, nil
}

func (c *cli) accessApplyCommand() *cobra.Command {
	var index uint64
	dry := false
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Replace the document of who may do what", Args: args("FILE"),
		Long: `Replace access.yaml, the document of who may do what, at every coordinator at once,
and show whom it gives and takes what. Nothing is asked. With --if-index, as
` + "`dctl access show`" + ` tells it, it is refused if somebody else has changed the document
meanwhile; 0 is that there is none yet. It is always refused if nobody with a
credential could change it any more.`,
		Example: `dctl access apply access.yaml -m "ann deploys www"
dctl access apply access.yaml --if-index 4711`,
	}
	cmd.Flags().Uint64Var(&index, "if-index", 0, "refuse unless the document in force has this index")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what it would change, as `dctl access diff` does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &controlv1.ApplyAccessRequest{DryRun: dry}
		if cmd.Flags().Changed("if-index") {
			req.IfIndex = &index
		}
		return c.applyAccess(cmd, args[0], req)
	}
	return cmd
}

func (c *cli) accessDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diff FILE", Short: "Show whom an access.yaml would give and take what", Args: args("FILE"),
		Example: "dctl access diff access.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.applyAccess(cmd, args[0], &controlv1.ApplyAccessRequest{DryRun: true})
		},
	}
}

func (c *cli) applyAccess(cmd *cobra.Command, path string, req *controlv1.ApplyAccessRequest) error {
	var err error
	if req.Source, err = c.readAccess(path); err != nil {
		return err
	}
	req.Filename = path
	return c.with(func(cl *client) error {
		req.Mutation = cl.mutation("")
		out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ApplyAccess, req)
		if err != nil {
			return err
		}
		return c.show(out, func(w io.Writer) {
			for _, line := range out.Changes {
				fmt.Fprintln(w, output.Line(line))
			}
			switch {
			case len(out.Changes) == 0:
				fmt.Fprintln(w, "nobody may more or less by it")
			case req.DryRun:
				fmt.Fprintf(w, "nothing is changed yet; the document in force has index %d\n", out.Index)
			}
			if !req.DryRun {
				fmt.Fprintf(w, "in force, index %d\n", out.Index)
			}
		})
	})
}

func (c *cli) accessShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the document of who may do what", Args: upTo(0),
		Example: "dctl access show > access.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetAccess,
					&controlv1.GetAccessRequest{})
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) {
					if out.Index == 0 {
						fmt.Fprintln(c.err, "no access.yaml was ever applied: every operator is admin")
						return
					}
					fmt.Fprint(w, output.Clean(out.Source))
					fmt.Fprintf(c.err, "index %d, applied by %s at %s%s\n", out.Index, output.Line(out.Actor),
						output.Moment(out.AtMs), because(out.Reason))
				})
			})
		},
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + output.Line(reason)
}

// scope reads APP or APP/GROUP.
func scope(given []string) (app, group string, err error) {
	if len(given) == 0 {
		return "", "", nil
	}
	app, group, found := strings.Cut(given[0], "/")
	if app == "" || found && (group == "" || strings.Contains(group, "/")) {
		return "", "", usage("%q is no application: write APP, or APP/GROUP", given[0])
	}
	return app, group, nil
}

func (c *cli) accessTestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "test PERSON VERB [APP[/GROUP]]", Short: "Say whether somebody may do something",
		Args:    fromTo(2, 3),
		Example: "dctl access test ann deploy www/prod\ndctl access test ann cordon",
		Long: `Say whether somebody may do something: exit code 0 if they may, 4 if not. Without a
group it is asked of every group, without an application of every one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.explain(cmd, args[0], args[1], args[2:], exitAuth)
		},
	}
}

func (c *cli) accessExplainCommand() *cobra.Command {
	person := ""
	cmd := &cobra.Command{
		Use: "explain VERB [APP[/GROUP]]", Short: "Say why one may do something, or why not",
		Args:    fromTo(1, 2),
		Example: "dctl access explain deploy www/prod\ndctl access explain approve www --person ann",
		Long: `Say by which rule one may do something, or which rule is missing and whom to ask.
An application that does not exist and one that one may not see answer the same.`,
	}
	cmd.Flags().StringVar(&person, "person", "", "somebody else")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.explain(cmd, person, args[0], args[1:], exitDone)
	}
	return cmd
}

// explain ends with the code if it is not allowed.
func (c *cli) explain(cmd *cobra.Command, person, verb string, where []string, refused int) error {
	app, group, err := scope(where)
	if err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ExplainAccess,
			&controlv1.ExplainAccessRequest{Person: person, Verb: verb, App: app, Group: group})
		if err != nil {
			return err
		}
		if err := c.show(out, func(w io.Writer) { printExplanation(w, out) }); err != nil || out.Allowed {
			return err
		}
		return silent(refused)
	})
}

func printExplanation(w io.Writer, e *controlv1.ExplainAccessResponse) {
	if e.Allowed {
		fmt.Fprintf(w, "yes, %s may\n", output.Line(e.Person))
		for _, rule := range e.By {
			fmt.Fprintln(w, "  "+output.Line(rule))
		}
		return
	}
	fmt.Fprintf(w, "no: %s; ask %s\n", output.Line(e.Missing), output.Line(strings.Join(e.Ask, " or ")))
}

// fromTo wants between so many arguments.
func fromTo(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usage("an argument is missing for `%s`; for instance:\n%s", cmd.UseLine(), indent(cmd.Example))
		}
		return upTo(most)(cmd, args)
	}
}

func (c *cli) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show who you are to the cluster, and what you may", Args: upTo(0),
		Example: "dctl whoami",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.WhoAmI, &controlv1.WhoAmIRequest{})
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { printWhoAmI(w, out) })
			})
		},
	}
}

func printWhoAmI(w io.Writer, s *controlv1.WhoAmIResponse) {
	fmt.Fprint(w, output.Line(s.Name))
	if s.BreakGlass {
		fmt.Fprint(w, ", by a BREAK-GLASS credential")
	} else if s.CountsAs != s.Name {
		fmt.Fprintf(w, ", who counts as %s where two people are asked for", output.Line(s.CountsAs))
	}
	fmt.Fprintln(w)
	if len(s.Teams) > 0 {
		fmt.Fprintf(w, "teams: %s\n", output.Line(strings.Join(s.Teams, ", ")))
	}
	for _, rule := range s.Rules {
		fmt.Fprintln(w, output.Line(rule))
	}
	if len(s.Rules) == 0 {
		fmt.Fprintln(w, "no rule is for you: you may see nothing; ask an admin of the cluster")
	}
}
