package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/coordinator"
)

// epochFlags are what recover and restore have in common.
type epochFlags struct {
	dir, name, reason string
	epoch             uint64
}

func (f *epochFlags) add(cmd *cobra.Command) {
	d := defaults()
	cmd.Flags().StringVar(&f.dir, "dir", d.Dir, "the coordinator's folder")
	cmd.Flags().StringVar(&f.name, "name", d.Name, "name of the coordinator that goes on")
	cmd.Flags().StringVarP(&f.reason, "reason", "m", "", "why, for everybody who looks at the cluster")
	cmd.Flags().Uint64Var(&f.epoch, "epoch", 0,
		"the new epoch (default: the next one; of a restored backup, 100 higher than its own)")
}

func (f *epochFlags) run(stdout io.Writer, do func() (uint64, error)) error {
	if f.reason == "" {
		return usage{errors.New("--reason is missing: this gives up what other coordinators know")}
	}
	epoch, err := do()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout,
		"%s goes on alone in epoch %d. Wipe the others before they start again, start this one,\n"+
			"look at the fleet, then `dctl cluster activate %d`, and let others join\n", f.name, epoch, epoch)
	return err
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage{fmt.Errorf("unexpected argument %q; see `%s --help`", args[0], cmd.CommandPath())}
	}
	return nil
}

// recoverCommand is the way back from a lost majority.
func recoverCommand(stdout io.Writer) *cobra.Command {
	var f epochFlags
	cmd := &cobra.Command{
		Use:   "recover --dir DIR --name NAME --reason TEXT",
		Short: "Go on alone after a majority was lost for good",
		Long: `Make the stopped coordinator in DIR the only member of its cluster, with everything
that is in its log. Use the survivor with the highest index, and only if a majority
will not come back: what the others had and this one lacks is lost.

The cluster begins a new epoch and observes until a person activates it. Agents never
go back to an older epoch, so old coordinators that start again command nobody; they
are members no more, and join anew with an empty folder and a token.`,
		Example:      `  dcoord recover --dir /var/lib/groundswell/coordinator --name c1 -m "zones b and c are gone"`,
		SilenceUsage: true, SilenceErrors: true, Args: noArguments,
	}
	f.add(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		return f.run(stdout, func() (uint64, error) { return coordinator.Recover(f.dir, f.name, f.reason, f.epoch) })
	}
	return cmd
}

// restoreCommand is the way back when no log is left.
func restoreCommand(stdout io.Writer) *cobra.Command {
	var f epochFlags
	file := ""
	cmd := &cobra.Command{
		Use:   "restore --dir DIR --name NAME --from FILE --reason TEXT",
		Short: "Begin anew from a backup when no log is left",
		Long: `Make a folder with a coordinator's keys and no log the only member of a cluster with
the state of a backup (` + "`dctl cluster backup`" + `). DIR must hold ca.key, gossip.key and
identity/ca.crt of the cluster; what else is missing is made.

The cluster begins a new epoch and observes until a person activates it, as after
` + "`dcoord recover`" + `. If agents say that they have seen a higher epoch, give one with
--epoch.`,
		Example:      `  dcoord restore --dir /var/lib/groundswell/coordinator --name c1 --from prod.backup -m "all disks lost"`,
		SilenceUsage: true, SilenceErrors: true, Args: noArguments,
	}
	f.add(cmd)
	cmd.Flags().StringVar(&file, "from", "", "the backup")
	cmd.RunE = func(*cobra.Command, []string) error {
		if file == "" {
			return usage{errors.New("--from is missing: the file of `dctl cluster backup`")}
		}
		return f.run(stdout, func() (uint64, error) {
			return coordinator.Restore(f.dir, f.name, file, f.reason,
				f.epoch)
		})
	}
	return cmd
}
