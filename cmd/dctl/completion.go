package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// completionExamples shows how to use cobra's own completion commands.
func completionExamples(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		for _, shell := range cmd.Commands() {
			shell.Example = fmt.Sprintf("dctl completion %s > dctl.%s", shell.Name(), shell.Name())
		}
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		}
		cmd.Args = cobra.ArbitraryArgs
	}
}
