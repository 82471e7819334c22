package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/deploy/spec"
	"github.com/groundswell/groundswell/hooks"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

const appHead = "APP\tGROUP\tSERVING\tRUNNING\tLAST\tSTATUS"

func (c *cli) appsCommand() *cobra.Command {
	return family("apps", "What is deployed, where and how", c.appsList(), c.appsShow(), c.appsInit(), c.appsApply(),
		c.appsLint(), c.appsDelete())
}

func (c *cli) appsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List applications and their groups", Args: upTo(0), Example: "dctl apps list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ListApps,
					&controlv1.ListAppsRequest{})
				if err != nil {
					return err
				}
				if c.machine() {
					return list(c, "apps", out.Apps, "", nil)
				}
				return output.Table(c.out, appHead, appRows(out.Apps))
			})
		},
	}
}

func appRows(apps []*controlv1.App) []string {
	var rows []string
	for _, a := range apps {
		for _, g := range a.Groups {
			last, status := g.LastDeployment, g.LastStatus
			if g.Deployment != "" {
				last, status = g.Deployment, "in flight"
			}
			if n := len(g.InFlight); n > 1 {
				status = fmt.Sprintf("%d in flight", n)
			}
			if g.Frozen != "" {
				status += ", frozen"
			}
			if g.EditedHosts > 0 {
				status += ", edited"
			}
			rows = append(rows, output.Cells(a.Name, g.Name, fmt.Sprintf("%d/%d", g.Serving, g.Hosts),
				running(g), output.ShortID(last), status))
		}
	}
	return rows
}

// printEdited says on how many hosts installed files were edited, and the way on.
func printEdited(w io.Writer, apps []*controlv1.App) {
	for _, a := range apps {
		for _, g := range a.Groups {
			if g.EditedHosts == 0 {
				continue
			}
			fmt.Fprintf(w, "\n%s %s: installed files are not what the last deployment left on %s:\n",
				output.Line(a.Name), output.Line(g.Name), output.Count(int(g.EditedHosts), "host"))
			fmt.Fprintf(w, "  dctl apps show %s  # which\n  dctl deploy --app %s --group %s --rev @current  # repairs them\n",
				output.Line(a.Name), output.Line(a.Name), output.Line(g.Name))
		}
	}
}

// running is "9be01d7 ×11, 4f2a91c ×1".
func running(g *controlv1.Group) string {
	var out []string
	for _, r := range g.Running {
		text := fmt.Sprintf("%s ×%d", output.ShortName(r.Name), r.Hosts)
		if r.Grade == "suspect" || r.Grade == "bad" {
			text += " (" + r.Grade + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (c *cli) appsShow() *cobra.Command {
	var app string
	var source bool
	cmd := &cobra.Command{
		Use: "show APP", Short: "Show an application", Args: upTo(1),
		Example: "dctl apps show www\ndctl apps show www --source > deploy.yaml",
	}
	c.appFlag(cmd, &app)
	cmd.Flags().BoolVar(&source, "source", false, "print the deploy.yaml that is in force")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		app, err := oneApp(cmd, args, app)
		if err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetApp,
				&controlv1.GetAppRequest{App: app})
			if err != nil {
				return err
			}
			if source && len(out.App.GetGroups()) > 0 {
				if out.App.Groups[0].Source == "" {
					return &exitError{code: exitAuth, text: "the deploy.yaml of " + app + " defines every group of it: it is " +
						"shown to who may see them all"}
				}
				_, err := io.WriteString(c.out, out.App.Groups[0].Source)
				return err
			}
			return c.show(out.App, func(w io.Writer) { printApp(w, out.App) })
		})
	}
	return cmd
}

// oneApp is the application that a command is about, named by its argument or,
// as everywhere else, by --app.
func oneApp(cmd *cobra.Command, given []string, flag string) (string, error) {
	switch {
	case len(given) == 0 && flag == "":
		return "", args("APP")(cmd, given)
	case len(given) == 0:
		return flag, nil
	case flag != "" && flag != given[0]:
		return "", usage("%s or --app %s: which one?", given[0], flag)
	}
	return given[0], nil
}

func printApp(w io.Writer, a *controlv1.App) {
	var rows []string
	for _, g := range a.GetGroups() {
		selector := g.Selector
		if g.NextSelector != "" {
			selector += " (then: " + g.NextSelector + ")"
		}
		rows = append(rows, output.Cells(g.Name, selector, g.Config, g.Artifacts))
	}
	_ = output.Table(w, "GROUP\tSELECT\tCONFIG\tARTIFACTS", rows) // a broken pipe ends the program anyway
	fmt.Fprintln(w)
	_ = output.Table(w, appHead, appRows([]*controlv1.App{a})) // a broken pipe ends the program anyway
	for _, g := range a.GetGroups() {
		if g.Frozen != "" {
			fmt.Fprintln(w, output.Line("group "+g.Name+" is frozen "+g.Frozen))
		}
	}
	var drift []string
	for _, g := range a.GetGroups() {
		for _, x := range g.Drift {
			why := x.Why
			if why == "" {
				why = "is being brought up to date"
			}
			drift = append(drift, output.Cells(g.Name, x.Host, output.ShortName(x.Runs),
				output.ShortName(x.Wants), why))
		}
	}
	var grades []string
	for _, g := range a.GetGroups() {
		for _, r := range g.Running {
			grades = append(grades, output.Cells(g.Name, output.ShortName(r.Name), r.Hosts, r.Grade))
		}
	}
	if len(grades) > 0 {
		fmt.Fprintln(w)
		_ = output.Table(w, "GROUP\tRUNS\tHOSTS\tGRADE", grades) // a broken pipe ends the program anyway
	}
	if len(drift) > 0 {
		fmt.Fprintln(w)
		_ = output.Table(w, "GROUP\tDRIFTED\tRUNS\tSHOULD RUN\tWHY", drift) // a broken pipe ends the program anyway
	}
	printEdited(w, []*controlv1.App{a})
}

func (c *cli) appsDelete() *cobra.Command {
	var app, group string
	cmd := &cobra.Command{
		Use: "delete APP [--group GROUP]", Short: "Forget a group; what runs on its hosts is not " +
			"touched", Args: upTo(1),
		Example: "dctl apps delete www --group staging",
	}
	cmd.Flags().StringVar(&group, "group", "", "deployment group, where the application has several")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		app, err := oneApp(cmd, args, app)
		if err != nil {
			return err
		}
		what := strings.TrimSpace(app + " " + group)
		if err := c.confirm("Forget " + what + "?"); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req := &controlv1.DeleteGroupRequest{Mutation: cl.mutation(""), App: app, Group: group}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.DeleteGroup, req)
			if err != nil {
				return err
			}
			return c.show(out, func(w io.Writer) { fmt.Fprintln(w, "deleted "+what) })
		})
	}
	c.appFlag(cmd, &app)
	return cmd
}

func (c *cli) appsApply() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "apply [-f deploy.yaml]", Short: "Put a deploy.yaml into force", Args: upTo(0),
		Example: "dctl apps apply -f deploy.yaml --dry-run\ndctl apps apply -f deploy.yaml --reason \"second zone\"",
	}
	cmd.Flags().StringVarP(&file, "file", "f", "deploy.yaml", "file to apply, - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		data, name, err := c.readFile(file)
		if err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req := &controlv1.ApplyAppRequest{Mutation: cl.mutation(""), Source: data, Filename: name, DryRun: true}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ApplyApp, req)
			if err != nil {
				return err
			}
			if !dryRun {
				if len(out.Leaving) > 0 {
					if err := c.confirmHard(leavingText(out.Leaving), "Let them leave?"); err != nil {
						return err
					}
				}
				req.DryRun, req.MayLeave = false, len(out.Leaving) > 0
				if out, err = call(cmd.Context(), cl, controlv1.ControlServiceClient.ApplyApp, req); err != nil {
					return err
				}
			}
			return c.show(out, func(w io.Writer) { printApplied(w, out, dryRun) })
		})
	}
	return cmd
}

func printApplied(w io.Writer, r *controlv1.ApplyAppResponse, dryRun bool) {
	did := "applied"
	if dryRun {
		did = "would apply"
	}
	changed := "nothing changed"
	if len(r.Changed) > 0 {
		changed = "changed: " + strings.Join(r.Changed, ", ")
	}
	if dryRun && len(r.Leaving) > 0 {
		fmt.Fprintln(w, output.Line(leavingText(r.Leaving)))
	}
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s %s with groups %s; %s", did, r.App,
		strings.Join(r.Groups, ", "), changed)))
	for _, text := range r.Warnings {
		fmt.Fprintln(w, "warning: "+output.Line(text))
	}
}

// leavingText says how many hosts leave which group; what runs on them is not
// touched.
func leavingText(all []*controlv1.Leaving) string {
	var out []string
	for _, l := range all {
		text := fmt.Sprintf("%d of %d hosts leave group %s: %s", len(l.Hosts), l.Of, l.Group,
			strings.Join(l.Hosts[:min(len(l.Hosts), 5)], ", "))
		if len(l.Hosts) > 5 {
			text += ", ..."
		}
		if int(l.Of) == len(l.Hosts) {
			text += " (nobody is left in it)"
		}
		if l.Waits {
			text += " (once nothing is in flight on it)"
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// readFile reads a file or standard input.
func (c *cli) readFile(path string) (data []byte, name string, err error) {
	if path == "-" {
		data, err = io.ReadAll(c.in)
		name = "standard input"
	} else {
		data, err = os.ReadFile(path)
		name = filepath.Base(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", usage("there is no %s; write one with `dctl apps init`, or name it with -f", path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", path, err)
	}
	return data, name, nil
}

func (c *cli) appsLint() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "lint [DIR]", Short: "Check deploy.yaml and appspec.yml without a cluster", Args: upTo(1),
		Long: "Check deploy.yaml, and the appspec with its scripts, of a folder. Exit 2 if a\ncoordinator or a " +
			"host would refuse them; warnings alone exit 0.",
		Example: "dctl apps lint\ndctl apps lint -f ops/deploy.yaml build/",
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "deploy.yaml (default: the one in DIR)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		if i, err := os.Stat(dir); err == nil && i.Mode().IsRegular() && file == "" { // a deploy.yaml was meant
			dir, file = filepath.Dir(dir), dir
		}
		return c.lint(dir, file)
	}
	return cmd
}

// finding is one line of lint.
type finding struct {
	severity, text string
}

func (c *cli) lint(dir, file string) error {
	path := file
	if path == "" {
		path = filepath.Join(dir, "deploy.yaml")
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return usage("there is no %s; write one with `dctl apps init`, or name it with -f", path)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	var all []finding
	for _, p := range spec.Lint(data, path) {
		all = append(all, finding{p.Severity, p.Error.Error()})
	}
	for _, f := range hooks.Lint(dir, "") {
		all = append(all, finding{f.Severity.String(), f.Error()})
	}
	return c.linted(all)
}

func (c *cli) linted(all []finding) error {
	errs := 0
	lines := make([]any, 0, len(all))
	for _, f := range all {
		if f.severity == spec.SeverityError {
			errs++
		}
		lines = append(lines, object{{"severity", f.severity}, {"text", f.text}})
		if !c.machine() {
			fmt.Fprintf(c.out, "%s: %s\n", f.severity, output.Clean(f.text))
		}
	}
	if c.machine() {
		if err := c.emit(object{{"errors", errs}, {"findings", lines}}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.out, "%s, %s\n", output.Count(errs, "error"), output.Count(len(all)-errs, "warning"))
	}
	if errs > 0 {
		return silent(exitUsage)
	}
	return nil
}
