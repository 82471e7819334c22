package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/deploy/spec"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/naming"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// pushFlags are those of revisions push.
type pushFlags struct {
	path, app, rev, url, appspec, message string

	unsafe, noLint bool
	ancestry       []string
}

func (c *cli) revisionsPush() *cobra.Command {
	f := pushFlags{path: "."}
	cmd := &cobra.Command{
		Use: "push [PATH] --app APP [--rev NAME]", Short: "Store a revision", Args: upTo(1),
		Long: `Store a folder, zip or tar as a revision, and register it. Only what the store
lacks is sent. What ` + "`dctl apps lint`" + ` refuses is refused before anything is sent: a
host would fail on it. Credentials of the store come from
the standard environment, as for every tool of its provider.`,
		Example: `dctl revisions push build/ --app www --rev 9be01d7
dctl revisions push www.tar.gz --app www --rev v1.2.0 --output json`,
	}
	c.appFlag(cmd, &f.app)
	cmd.Flags().StringVar(&f.rev, "rev", "",
		"name of the revision (default: HEAD, if PATH lies in a clean git checkout)")
	cmd.Flags().StringVar(&f.url, "artifacts", "", "URL of the store (default: the application's)")
	cmd.Flags().BoolVar(&f.unsafe, "rollback-unsafe", false,
		"never roll back from this revision without a person, e.g. after a migration")
	cmd.Flags().BoolVar(&f.noLint, "no-lint", false, "store it although a host may fail on it")
	cmd.Flags().StringVar(&f.appspec, "appspec", "", "name of the appspec (default: appspec.yml, else appspec.yaml)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			f.path = args[0]
		}
		if err := need(cmd, "app", f.app); err != nil {
			return err
		}
		return c.push(cmd.Context(), &f)
	}
	return cmd
}

func (c *cli) push(ctx context.Context, f *pushFlags) error {
	if err := c.nameRevision(ctx, f); err != nil {
		return err
	}
	if err := naming.Check("revision", f.rev); err != nil {
		return usage("--rev: %v", err)
	}
	src, err := c.source(ctx, f)
	if err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		store, err := cl.store(ctx, f.app, f.url)
		if err != nil {
			return err
		}
		pushed, err := bundle.Push(ctx, store, src, bundle.Options{Prev: cl.previous(ctx, store, f.app)})
		if err != nil {
			return pushError(f, err)
		}
		if err := cl.register(ctx, f, pushed); err != nil {
			return err
		}
		return c.show(pushedObject(f, pushed), func(w io.Writer) {
			fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s %s: %s in %s, %s sent", f.app, f.rev,
				shortDigest(string(pushed.Digest)),
				output.Bytes(pushed.Bytes), output.Count(pushed.Files, "file"), output.Bytes(pushed.UploadedBytes))))
		})
	})
}

// pushedObject is a contract: fields are only added.
func pushedObject(f *pushFlags, p bundle.Pushed) object {
	return object{
		{"app", f.app},
		{"revision", f.rev},
		{"digest", p.Digest},
		{"files", p.Files},
		{"bytes", p.Bytes},
		{"stored_bytes", p.StoredBytes},
		{"uploaded_bytes", p.UploadedBytes},
	}
}

// pushError makes a bundle that breaks the rules a matter of the caller.
func pushError(f *pushFlags, err error) error {
	if errors.Is(err, artifacts.ErrInvalid) {
		return usage("push %s: %v", f.path, err)
	}
	return fmt.Errorf("push %s: %w", f.path, err)
}

// nameRevision takes the commit's name where none was given.
func (c *cli) nameRevision(ctx context.Context, f *pushFlags) error {
	if f.rev == "" {
		head, err := gitHead(ctx, f.path)
		if err != nil {
			return usage("--rev is missing, and there is no commit to name it by: %v", err)
		}
		f.rev, f.message = head, gitSubject(ctx, f.path, head)
	}
	f.ancestry = gitAncestry(ctx, f.path, f.rev)
	if c.flags.reason != "" {
		f.message = c.flags.reason
	}
	return nil
}

// source opens the bundle and checks its appspec.
func (c *cli) source(ctx context.Context, f *pushFlags) (bundle.Source, error) {
	src, err := bundle.Open(f.path)
	if err != nil {
		return src, usage("open bundle: %v", err)
	}
	src.SpecFile = f.appspec
	data, name, err := appspec(ctx, src)
	if err != nil {
		return src, usage("%s: %v", f.path, err)
	}
	parsed, err := hooks.Parse(data, name)
	if err != nil {
		return src, err
	}
	if err := parsed.CheckEvents(hooks.EventNames()); err != nil { // hosts refuse it
		return src, usage("%s: %v", f.path, err)
	}
	if err := c.lintBundle(ctx, f, src); err != nil {
		return src, err
	}
	src.Dropped = func(file string) {
		fmt.Fprintln(c.err, "warning: "+output.Clean(file)+": its setuid or setgid bit is left out; set it by a mode in "+
			"permissions")
	}
	if f.noLint { // lint tells them too
		for _, w := range append(parsed.Warnings, parsed.Notices()...) {
			fmt.Fprintln(c.err, "warning: "+output.Clean(w.Error()))
		}
	}
	return src, nil
}

// lintBundle refuses what a host, or a coordinator, would refuse.
func (c *cli) lintBundle(ctx context.Context, f *pushFlags, src bundle.Source) error {
	if f.noLint {
		return nil
	}
	found, err := lintSource(ctx, src)
	if err != nil {
		return usage("%s: %v", f.path, err)
	}
	all := make([]finding, len(found))
	for i, x := range found {
		all[i] = finding{x.Severity.String(), x.Error()}
	}
	if data, err := src.ReadFile(ctx, "deploy.yaml"); err == nil {
		for _, p := range spec.Lint(data, "deploy.yaml") {
			all = append(all, finding{p.Severity, p.Error.Error()})
		}
	}
	errs := 0
	for _, x := range all {
		if x.severity == spec.SeverityError {
			errs++
		}
		fmt.Fprintf(c.err, "%s: %s\n", x.severity, output.Clean(x.text))
	}
	if errs > 0 {
		return usage("%s has %s, and nothing was sent; mend them, or say --no-lint", f.path,
			output.Count(errs, "error"))
	}
	return nil
}

// appspec reads the bundle's appspec under the names that it may have.
func appspec(ctx context.Context, src bundle.Source) (data []byte, name string, err error) {
	names := []string{src.SpecFile}
	if src.SpecFile == "" {
		names = []string{"appspec.yml", "appspec.yaml"}
	}
	for _, name := range names {
		data, err := src.ReadFile(ctx, name)
		if !artifacts.IsNotExist(err) {
			return data, name, err
		}
	}
	return nil, "", fmt.Errorf(
		"the bundle has no %s, which says what happens on a host; write one with `dctl apps init`", names[0])
}

// previous loads the index of the newest revision, so that what the store has
// is not sent again. Without one everything is sent, which is only slower.
func (cl *client) previous(ctx context.Context, o artifacts.Opener, app string) []*artifacts.Index {
	out, err := call(ctx, cl, controlv1.ControlServiceClient.ListRevisions, &controlv1.ListRevisionsRequest{App: app})
	if err != nil || len(out.Revisions) == 0 {
		return nil
	}
	index, err := artifacts.LoadIndex(ctx, o, artifacts.Digest(out.Revisions[0].Digest))
	if err != nil {
		return nil
	}
	return []*artifacts.Index{index}
}

func (cl *client) register(ctx context.Context, f *pushFlags, p bundle.Pushed) error {
	req := &controlv1.RegisterRevisionRequest{
		Mutation: cl.mutation(""), App: f.app, Name: f.rev, Digest: string(p.Digest), Bytes: p.Bytes,
		Files: int64(p.Files), Message: f.message,
		Ancestry: f.ancestry, Unsafe: f.unsafe,
	}
	if _, err := call(ctx, cl, controlv1.ControlServiceClient.RegisterRevision, req); err != nil {
		return &exitError{
			code: exitCode(err),
			text: fmt.Sprintf("the revision is stored as %s, but not registered: %s", p.Digest, message(err)), err: nil,
		}
	}
	return nil
}
