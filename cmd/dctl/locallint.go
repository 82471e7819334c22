package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/hooks"
)

// lintFinding is one finding for programs; fields are only added.
type lintFinding struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Field    string `json:"field"`
	Message  string `json:"message"`
}

func (c *cli) localLint() *cobra.Command {
	var kind, spec string
	cmd := &cobra.Command{
		Use: "lint [PATH]", Short: "Check an appspec and its scripts: there, run bit, line ends, " +
			"first line", Args: upTo(1),
		Long: "Check the appspec of a bundle and its scripts, and run nothing. Exit code 0: nothing that a host " +
			"would fail on, 1: errors, 2: wrong flags.",
		Example: "dctl local lint\ndctl local lint app.tgz",
	}
	cmd.Flags().StringVar(&kind, "type", "", "directory, zip, tar or tgz (default: what it is)")
	cmd.Flags().StringVar(&spec, "appspec", "",
		"name of the appspec in the bundle (default appspec.yml, else appspec.yaml)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := "."
		if len(args) > 0 {
			path = args[0]
		}
		if kind != "" {
			if _, err := bundle.ParseType(kind); err != nil {
				return usage("--type %q is not legal; use directory, zip, tar or tgz", kind)
			}
		}
		findings, err := lint(cmd, path, bundle.Type(kind), spec)
		if err != nil {
			findings = []hooks.Finding{{
				Problem:  hooks.Problem{File: path, Text: err.Error()},
				Severity: hooks.SeverityError,
			}}
		}
		return c.tellFindings(findings)
	}
	return cmd
}

// lint checks what lies at path. An archive is unpacked to look into it.
func lint(cmd *cobra.Command, path string, kind bundle.Type, spec string) ([]hooks.Finding, error) {
	src, err := bundle.Open(path)
	if err != nil && kind == "" {
		return nil, err
	}
	if kind != "" {
		src = bundle.Source{Path: path, Type: kind}
	}
	src.SpecFile = spec
	return lintSource(cmd.Context(), src)
}

// lintSource checks a bundle of any kind.
func lintSource(ctx context.Context, src bundle.Source) ([]hooks.Finding, error) {
	if src.Type == bundle.Directory {
		findings := hooks.Lint(src.Path, src.SpecFile)
		if err := src.Check(ctx); err != nil {
			findings = append(findings, hooks.Finding{
				Problem: hooks.Problem{File: src.Path, Text: err.Error()}, Severity: hooks.SeverityError,
			})
		}
		return findings, nil
	}
	tmp, err := os.MkdirTemp("", "dctl-lint-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to unpack to: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	dir := filepath.Join(tmp, "bundle")
	if _, err := src.Extract(ctx, dir); err != nil {
		return nil, err
	}
	return hooks.Lint(dir, src.SpecFile), nil
}

func (c *cli) tellFindings(findings []hooks.Finding) error {
	errors := 0
	all := []lintFinding{}
	for _, f := range findings {
		if f.Severity == hooks.SeverityError {
			errors++
		}
		all = append(all, lintFinding{f.Severity.String(), f.File, f.Pos.Line, f.Pos.Column, f.Field, f.Text})
		if !c.machine() {
			fmt.Fprintf(c.out, "%s: %s\n", f.Severity, output.Clean(f.Error()))
		}
	}
	if c.machine() {
		result := map[string]any{"ok": errors == 0, "findings": all}
		if err := json.NewEncoder(c.out).Encode(result); err != nil {
			return fmt.Errorf("write findings: %w", err)
		}
	} else if len(findings) == 0 {
		fmt.Fprintln(c.out, "ok: nothing found")
	}
	if errors > 0 {
		return silent(exitOther)
	}
	return nil
}
