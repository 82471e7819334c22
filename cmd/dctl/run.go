package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/rpc"
)

// run makes one call and returns the exit code. The end of ctx is Ctrl-C.
func run(ctx context.Context, c *cli, args []string) int {
	root := c.root()
	c.args = args
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := c.execute(ctx, root, args)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if ctx.Err() != nil && (rpc.Canceled(err) || errors.Is(err, context.Canceled)) {
		code = exitDetached
	}
	c.complain(code, err)
	return code
}

// execute lets fang draw help for a person. Only help: for every error fang
// asks the terminal for its colours, and waits for the answer.
func (c *cli) execute(ctx context.Context, root *cobra.Command, args []string) error {
	help := slices.ContainsFunc(args, func(a string) bool { return a == "-h" || a == "--help" })
	plain := slices.Contains(args, "--no-color") || c.env("NO_COLOR") != "" || c.env("DCTL_NO_COLOR") != "" ||
		c.env("TERM") == "dumb"
	if c.outTTY && !plain && (help || len(args) > 0 && args[0] == "help") {
		return fang.Execute(ctx, root, fang.WithoutVersion(), fang.WithoutManpage())
	}
	return root.ExecuteContext(ctx)
}

// complain tells on standard error why dctl fails, and a program on standard
// output too: one object, {"error": TEXT, "exit_code": N}.
func (c *cli) complain(code int, err error) {
	text := output.Clean(message(err))
	if code == exitDetached && text != "" {
		text = "interrupted"
	}
	if text == "" {
		return
	}
	fmt.Fprintln(c.err, "dctl: "+text)
	if c.wantsJSON() && !c.answered {
		_ = c.emit(object{{"error", text}, {"exit_code", code}}) // a broken pipe ends the program anyway
	}
}

// wantsJSON reports whether a program reads standard output. A wrong flag may
// stand before --output, which is then not read yet.
func (c *cli) wantsJSON() bool {
	for i, a := range c.args {
		v, ok := strings.CutPrefix(a, "--output=")
		if !ok {
			v, ok = strings.CutPrefix(a, "-o")
		}
		if (a == "--output" || a == "-o") && i+1 < len(c.args) {
			v, ok = c.args[i+1], true
		}
		if ok && (v == outputJSON || v == outputJSONL) {
			return true
		}
	}
	return c.machine()
}

// message is what an error says, without what the transport adds.
func message(err error) string {
	var e *exitError
	if errors.As(err, &e) {
		return strings.TrimSpace(e.Error())
	}
	return rpc.Text(err)
}
