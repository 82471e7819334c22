package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/near"
)

func (c *cli) root() *cobra.Command {
	root := family("dctl", "Deploy revisions to fleets of hosts, in waves",
		c.deployCommand(), c.planCommand(), c.simulateCommand(), c.rollbackCommand(), c.replayCommand(),
		c.schemaCommand(),
		c.statusCommand(), c.watchCommand(), c.historyCommand(), c.logsCommand(),
		c.hostsCommand(), c.appsCommand(), c.revisionsCommand(),
		c.localCommand(), c.tokenCommand(), c.accessCommand(), c.auditCommand(), c.whoamiCommand(),
		c.clusterCommand(),
		c.loginCommand(), c.versionCommand(),
	)
	root.AddCommand(c.actCommands()...)
	root.AddCommand(c.freezeCommand(), c.unfreezeCommand())
	root.AddCommand(c.devCommands()...)
	root.AddCommand(c.benchCommands()...)
	root.Long = `Deploy revisions to fleets of hosts, in waves.

Exit codes: 0 done; 1 anything else that failed; 2 usage or validation; 3 failed
and halted, or waiting for a decision, the fleet may be mixed; 4 not known, or not
allowed; 5 failed and rolled back clean; 6 the rollback failed too; 7 refused
(freeze, lock, window, policy, rejected); 8 the watch timed out, the deployment
goes on; 9 waiting for an approval; 10 plan --exit-code has changes; 130 left by
Ctrl-C. Every global flag is also an environment variable: DCTL_COORDINATOR,
DCTL_CONTEXT, DCTL_OUTPUT, and so on.`
	root.Example = `dctl deploy --app www --rev 9be01d7
dctl status`
	root.SilenceErrors, root.SilenceUsage = true, true
	c.globalFlags(root.PersistentFlags())
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return c.prepare(cmd) }
	root.SetFlagErrorFunc(c.flagError)
	root.InitDefaultCompletionCmd()
	completionExamples(root)
	return root
}

// family is a command that only holds others. Called without one of them it
// lists them; an unknown one is an error that names the nearest.
func family(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(children...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var known []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			known = append(known, sub.Name())
		}
	}
	hint := "see `" + cmd.CommandPath() + " --help`"
	meant := near.Name(name, known)
	for _, sub := range cmd.Commands() {
		if slices.Contains(sub.SuggestFor, name) {
			meant = sub.Name()
		}
	}
	if meant != "" {
		hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), meant)
	}
	return usage("unknown command %q of %s; %s", name, cmd.CommandPath(), hint)
}

// flagError adds the nearest flag to what pflag says of an unknown one. A
// command that only holds others has few flags: there the name of the command
// was wrong.
func (c *cli) flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if name := c.firstName(cmd); name != "" && cmd.HasAvailableSubCommands() {
		return unknownCommand(cmd, name)
	}
	_, name, unknown := strings.Cut(text, "unknown flag: --")
	if !unknown {
		return usage("%s; see `%s --help`", text, cmd.CommandPath())
	}
	var known []string
	collect := func(f *pflag.Flag) { known = append(known, f.Name) }
	cmd.Flags().VisitAll(collect)
	cmd.InheritedFlags().VisitAll(collect)
	if meant := near.Name(name, known); meant != "" {
		return usage("unknown flag --%s of %s; did you mean --%s?", name, cmd.CommandPath(), meant)
	}
	return usage("unknown flag --%s of %s; see `%s --help`", name, cmd.CommandPath(), cmd.CommandPath())
}

// firstName is the first argument after the path of cmd that is no flag, nor the
// value of one.
func (c *cli) firstName(cmd *cobra.Command) string {
	path := strings.Fields(cmd.CommandPath())[1:]
	value := false
	for _, a := range c.args {
		name, dashed := strings.CutPrefix(a, "-")
		switch {
		case value:
			value = false
		case dashed:
			name = strings.TrimPrefix(name, "-")
			f := cmd.Flag(name)
			if f == nil && len(name) == 1 {
				f = cmd.Flags().ShorthandLookup(name)
			}
			value = f != nil && f.NoOptDefVal == ""
		case len(path) > 0 && a == path[0]:
			path = path[1:]
		default:
			return a
		}
	}
	return ""
}

func (c *cli) globalFlags(f *pflag.FlagSet) {
	c.flags.timeout = config.Duration(30 * time.Second)
	f.StringSliceVarP(&c.flags.coordinators, "coordinator", "C", nil, "coordinator addresses, host:port[,host:port]")
	f.StringVar(&c.flags.context, "context", "", "context to use, from the contexts file")
	f.StringVar(&c.flags.credentials, "credentials", "", "folder with tls.crt, tls.key and ca.crt")
	f.StringVarP(&c.flags.output, "output", "o", outputAuto, "output: "+strings.Join(outputs(), ", "))
	f.BoolVar(&c.flags.noColor, "no-color", false, "no colours")
	f.BoolVar(&c.flags.noInput, "no-input", false, "never ask, never read keys")
	f.BoolVarP(&c.flags.yes, "yes", "y", false, "answer yes to every question")
	f.Var(&c.flags.timeout, "timeout", "how long one request may take, retries included")
	f.BoolVar(&c.flags.stale, "stale", false, "read from a coordinator that has lost the others, too")
	f.StringVarP(&c.flags.reason, "reason", "m", "", "why, for the history")
}

// prepare lays the environment under the flags and checks what is global.
func (c *cli) prepare(cmd *cobra.Command) error {
	if err := c.fromEnvironment(cmd.InheritedFlags()); err != nil {
		return err
	}
	if err := c.fromEnvironment(cmd.PersistentFlags()); err != nil {
		return err
	}
	if c.env("NO_COLOR") != "" {
		c.flags.noColor = true
	}
	if !slices.Contains(outputs(), c.flags.output) {
		return usage("--output %q is not legal; use one of %s", c.flags.output, strings.Join(outputs(), ", "))
	}
	return nil
}

// fromEnvironment reads DCTL_NO_INPUT for --no-input, and so on.
func (c *cli) fromEnvironment(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "DCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v := c.env(name)
		if f.Changed || v == "" || failed != nil || f.Name == "help" {
			return
		}
		if err := f.Value.Set(v); err != nil {
			failed = usage("%s: %v", name, err)
		}
	})
	return failed
}

// args wants exactly the arguments of these names.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage("%s is missing; for instance:\n%s", names[len(args)], indent(cmd.Example))
		}
		if len(args) > len(names) {
			return usage("%q is one argument too many for `%s`", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// upTo wants no more than n arguments.
func upTo(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage("%q is one argument too many for `%s`", args[n], cmd.UseLine())
		}
		return nil
	}
}

// need refuses a call without a flag.
func need(cmd *cobra.Command, name, value string) error {
	if value != "" {
		return nil
	}
	return usage("--%s is missing; for instance:\n%s", name, indent(cmd.Example))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
