package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// backupPatience is how long a backup may take: some 100 MB over a slow link.
const backupPatience = 10 * time.Minute

func (c *cli) clusterBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Save the replicated state", Args: args("FILE"),
		Example: "dctl cluster backup prod.backup",
		Long: `Save the replicated state as of now, with a checksum: applications, deployments,
hosts, tokens' hashes, identities' fingerprints. It holds no key: save ca.key,
gossip.key and identity/ of one coordinator's folder elsewhere, once. To restore it:
` + "`dcoord restore --help`" + `.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error { return c.backup(cmd, cl, args[0]) })
		},
	}
}

// backup writes the file whole or not at all.
func (c *cli) backup(cmd *cobra.Command, cl *client, file string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), backupPatience)
	defer cancel()
	m, in, err := receive(ctx, cl, func(api controlv1.ControlServiceClient,
		ctx context.Context,
	) (grpc.ServerStreamingClient[controlv1.BackupChunk], error) {
		return api.Backup(ctx, &controlv1.BackupRequest{})
	})
	var all []byte
	for ; err == nil; m, err = in.Recv() {
		all = append(all, m.Data...)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if len(all) == 0 {
		return errors.New("the coordinator sent an empty backup")
	}
	if _, err := os.Stat(file); err == nil {
		return usage("%s exists; a backup overwrites nothing", file)
	}
	if err := identity.WriteSecret(file, all); err != nil {
		return err
	}
	return c.show(object{{"file", file}, {"bytes", len(all)}}, func(w io.Writer) {
		fmt.Fprintf(w, "%d bytes in %s\n", len(all), file)
	})
}

func (c *cli) clusterSnapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use: "snapshot", Short: "Have every coordinator write a snapshot and cut its log", Args: upTo(0),
		Example: "dctl cluster snapshot",
		Long: `Have every coordinator write what it knows as a snapshot on its own disk and cut its
log. They do so by themselves after 8,192 entries or 64 MiB; before an upgrade or a
planned restart it makes the start short. It is no backup: ` + "`dctl cluster backup`" + ` is.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.Snapshot,
					&controlv1.SnapshotRequest{})
				if err != nil {
					return err
				}
				return errors.Join(c.show(out, func(w io.Writer) { printSnapshots(w, out) }), unwritten(out))
			})
		},
	}
}

func printSnapshots(w io.Writer, s *controlv1.SnapshotResponse) {
	for _, m := range s.Coordinators {
		if m.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", output.Line(m.Name), output.Line(m.Error))
			continue
		}
		fmt.Fprintf(w, "%s: %d bytes, up to index %d\n", output.Line(m.Name), m.Bytes, m.Index)
	}
}

// unwritten is an error if a coordinator has written none.
func unwritten(s *controlv1.SnapshotResponse) error {
	n := 0
	for _, m := range s.Coordinators {
		if m.Error != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d coordinators wrote no snapshot", n, len(s.Coordinators))
}

func (c *cli) clusterActivateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "activate EPOCH", Short: "Let a recovered cluster act again", Args: args("EPOCH"),
		Example: "dctl cluster activate 2 -m \"the fleet reports what we expect\"",
		Long: `A cluster that was recovered (` + "`dcoord recover`" + `) or restored (` + "`dcoord restore`" + `)
observes: hosts report what they run, and nothing is decided. Look at ` + "`dctl status`" + `
and ` + "`dctl hosts list`" + ` first: what the cluster does not know any more it will do again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			epoch, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usage("EPOCH %q: %v; `dctl cluster status` shows it", args[0], err)
			}
			return c.with(func(cl *client) error {
				req := &controlv1.ActivateEpochRequest{Mutation: cl.mutation(""), Epoch: epoch}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ActivateEpoch, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "epoch %d is active\n", epoch) })
			})
		},
	}
}
