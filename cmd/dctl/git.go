package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// gitHead returns the commit that a clean checkout is at.
func gitHead(ctx context.Context, dir string) (string, error) {
	changes, err := git(ctx, dir, "status", "--porcelain", "--untracked-files=normal")
	if err != nil {
		return "", err
	}
	if changes != "" {
		return "", fmt.Errorf("the git checkout has changes that no commit holds (%s); commit them, or give --rev",
			output.Count(len(strings.Split(changes, "\n")), "file"))
	}
	return git(ctx, dir, "rev-parse", "HEAD")
}

// gitSubject returns the first line of a commit's message, "" if unknown.
func gitSubject(ctx context.Context, dir, commit string) string {
	subject, err := git(ctx, dir, "log", "-1", "--format=%s", commit, "--")
	if err != nil {
		return ""
	}
	return subject
}

// ancestors is how many of a commit's ancestors travel with a revision: enough
// to tell which of two that follow each other closely contains the other.
const ancestors = 200

// gitAncestry lists the newest ancestors of a commit, children before parents;
// none when the name is no commit of the checkout.
func gitAncestry(ctx context.Context, dir, rev string) []string {
	out, err := git(ctx, dir, "rev-list", "--topo-order", "--skip=1", fmt.Sprintf("--max-count=%d", ancestors),
		rev, "--")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		first, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		return "", fmt.Errorf("git %s in %s: %s", args[0], dir, first)
	}
	if err != nil {
		return "", fmt.Errorf("run git: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
