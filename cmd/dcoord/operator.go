package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/coordinator"
)

// operatorCommand is the way in when no operator's credential is good any more.
func operatorCommand(stdout io.Writer) *cobra.Command {
	dir, name, out := "", "", ""
	cmd := &cobra.Command{
		Use:   "operator --dir DIR --name NAME",
		Short: "Make a break-glass operator's credential on a coordinator's machine",
		Long: `Make an operator's credential from the CA's key in DIR, a coordinator's folder,
whether the coordinator runs or not and whether the cluster has a leader or not.

The certificate says that it was made this way. It lives for a day and is never
renewed; the cluster records its first use, and ` + "`dctl access list`" + ` shows it. It may
do what an operator may, but approve: it is nobody's second pair of eyes. Use it to
make a token for a person, or to confirm one (` + "`dctl access confirm`" + `), then remove it.`,
		Example: `  dcoord operator --dir /var/lib/groundswell/coordinator --name ann
  dctl token create --role operator --name ann -C 10.0.0.11:7100 \
    --credentials /var/lib/groundswell/coordinator/break-glass-ann > ann.token`,
		SilenceErrors: true, SilenceUsage: true,
		Args: noArguments,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaults().Dir, "the coordinator's folder")
	f.StringVar(&name, "name", "", "the person who uses it, for the history")
	f.StringVar(&out, "out", "", "folder of the credential (default DIR/break-glass-NAME)")
	cmd.RunE = func(*cobra.Command, []string) error {
		if name == "" {
			return usage{errors.New("--name is missing: the history shows who used the credential")}
		}
		if out == "" {
			out = filepath.Join(dir, "break-glass-"+name)
		}
		ends, err := coordinator.BreakGlass(dir, name, out)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\ngood until %s; give it to dctl with --credentials\n",
			out, ends.UTC().Format(time.RFC3339))
		return err
	}
	return cmd
}
