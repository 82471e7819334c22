package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/artifacts/stores"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) revisionsCommand() *cobra.Command {
	return family("revisions", "What can be deployed", c.revisionsPush(), c.revisionsList(), c.revisionsShow(),
		c.revisionsVerify(), c.revisionsPrune())
}

func (c *cli) revisionsList() *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "list --app APP", Short: "List revisions, newest first", Args: upTo(0), Example: "dctl revisions list " +
			"--app www",
	}
	c.appFlag(cmd, &app)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ListRevisions,
				&controlv1.ListRevisionsRequest{App: app})
			if err != nil {
				return err
			}
			return list(c, "revisions", out.Revisions, "NAME\tDIGEST\tSIZE\tFILES\tHOSTS\tPUSHED\tBY\tNOTE",
				revisionRow)
		})
	}
	return cmd
}

func revisionRow(r *controlv1.Revision) string {
	note := r.Message
	if r.Bad != "" {
		note = strings.TrimSpace("BAD since " + r.Bad + " " + note)
	}
	var names []string
	for _, name := range revisionNames(r) {
		names = append(names, output.ShortName(name))
	}
	return output.Cells(strings.Join(names, ","), shortDigest(r.Digest), output.Bytes(r.Bytes), r.Files, r.Hosts,
		output.Moment(r.AtMs), r.Actor, note)
}

func revisionNames(r *controlv1.Revision) []string {
	if len(r.Names) == 0 {
		return []string{r.Name}
	}
	return r.Names
}

func shortDigest(d string) string {
	const digits = 12
	hex := strings.TrimPrefix(d, "sha256:")
	return hex[:min(digits, len(hex))]
}

// revision resolves what a person calls a revision.
func (cl *client) revision(ctx context.Context, app, name string) (*controlv1.Revision, error) {
	out, err := call(ctx, cl, controlv1.ControlServiceClient.ListRevisions,
		&controlv1.ListRevisionsRequest{App: app, Name: name})
	if err != nil {
		return nil, err
	}
	if len(out.Revisions) != 1 {
		return nil, usage("%q names %s of %s; see `dctl revisions list --app %s`", name,
			output.Count(len(out.Revisions), "revision"), app, app)
	}
	return out.Revisions[0], nil
}

func (c *cli) revisionsShow() *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "show REVISION --app APP", Short: "Show one revision", Args: args("REVISION"), Example: "dctl revisions " +
			"show 9be01d7 --app www",
	}
	c.appFlag(cmd, &app)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			r, err := cl.revision(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			return c.show(r, func(w io.Writer) { printRevision(w, r) })
		})
	}
	return cmd
}

func printRevision(w io.Writer, r *controlv1.Revision) {
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s", r.App, strings.Join(revisionNames(r), ", "))))
	fmt.Fprintln(w, output.Line(r.Digest))
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s in %s, pushed %s by %s, runs on %s", output.Bytes(r.Bytes),
		output.Count(int(r.Files), "file"), output.Moment(r.AtMs), r.Actor, output.Count(int(r.Hosts), "host"))))
	if r.Message != "" {
		fmt.Fprintln(w, output.Line(r.Message))
	}
	if r.Bad != "" {
		fmt.Fprintln(w, output.Line("BAD: marked by deployment "+r.Bad+"; see `dctl status "+r.Bad+"`"))
	}
}

func (c *cli) revisionsVerify() *cobra.Command {
	var app, url string
	cmd := &cobra.Command{
		Use: "verify REVISION --app APP", Short: "Read a revision from its store and check " +
			"every byte", Args: args("REVISION"),
		Example: "dctl revisions verify 9be01d7 --app www",
	}
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&url, "artifacts", "", "URL of the store (default: the application's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			r, err := cl.revision(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			store, err := cl.store(cmd.Context(), app, url)
			if err != nil {
				return err
			}
			if err := cache.VerifyStored(cmd.Context(), store, artifacts.Digest(r.Digest)); err != nil {
				return fmt.Errorf("verify %s of %s: %w", args[0], app, err)
			}
			return c.show(object{{"app", app}, {"revision", args[0]}, {"digest", r.Digest}, {"ok", true}},
				func(w io.Writer) {
					fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s is whole: %s in %s", app, args[0],
						output.Bytes(r.Bytes),
						output.Count(int(r.Files), "file"))))
				})
		})
	}
	return cmd
}

// store opens the artifact store of an application, or the one at url.
func (cl *client) store(ctx context.Context, app, url string) (artifacts.Store, error) {
	if url == "" {
		out, err := call(ctx, cl, controlv1.ControlServiceClient.GetApp, &controlv1.GetAppRequest{App: app})
		if err != nil {
			return nil, err
		}
		for _, g := range out.App.GetGroups() {
			url = g.Artifacts
		}
	}
	if url == "" {
		return nil, usage("application %s has no artifact store; apply its deploy.yaml, or give --artifacts", app)
	}
	store, err := stores.Open(ctx, url)
	if err != nil {
		return nil, usage("open the artifact store of %s: %v", app, err)
	}
	name, _, _ := strings.Cut(url, "?")
	return waitingStore{store, cl.cli, name}, nil
}

func (c *cli) revisionsPrune() *cobra.Command {
	var app string
	var keep int32
	var dry bool
	cmd := &cobra.Command{
		Use: "prune --app APP", Short: "Forget old revisions that nothing needs", Args: upTo(0),
		Example: "dctl revisions prune --app www --keep 50 --dry-run",
	}
	c.appFlag(cmd, &app)
	cmd.Flags().Int32Var(&keep, "keep", 100, "so many of the newest stay in any case")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say which")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := need(cmd, "app", app); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.PruneRevisions,
				&controlv1.PruneRevisionsRequest{Mutation: cl.mutation(""), App: app, Keep: keep, DryRun: dry})
			if err != nil {
				return err
			}
			return c.show(out, func(w io.Writer) { printPruned(w, app, dry, out) })
		})
	}
	return cmd
}

func printPruned(w io.Writer, app string, dry bool, out *controlv1.PruneRevisionsResponse) {
	did := "forgotten"
	if dry {
		did = "would be forgotten"
	}
	for _, r := range out.Pruned {
		fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s, pushed %s", strings.Join(revisionNames(r), ", "),
			shortDigest(r.Digest), output.Moment(r.AtMs))))
	}
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s of %s %s, %d stay; bundles stay in their store",
		output.Count(len(out.Pruned), "revision"), app, did, out.Kept)))
}
