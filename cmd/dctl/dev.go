package main

import "github.com/spf13/cobra"

// devCommands are those of a fleet on one machine; there are none yet.
func (c *cli) devCommands() []*cobra.Command { return nil }
