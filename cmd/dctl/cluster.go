package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) clusterCommand() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "Show the coordinators", Args: upTo(0), Example: "dctl cluster status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := c.awaitLeader(cmd.Context(), cl)
				if err != nil {
					return err
				}
				if err := c.learn(out); err != nil {
					fmt.Fprintln(c.err, "dctl: the addresses of the coordinators are not remembered: "+message(err))
				}
				return c.show(out, func(w io.Writer) { printCluster(w, out) })
			})
		},
	}
	return family("cluster", "The coordinators", status,
		c.clusterRemoveCommand(), c.clusterBackupCommand(), c.clusterSnapshotCommand(),
		c.clusterActivateCommand(), c.clusterCACommand(), c.ringCommand())
}

// leaderLooks is how often, every 100 ms, the status of a cluster looks for a
// leader that is to come: all voters answer, and an election takes about a second.
const leaderLooks = 50

// awaitLeader answers how the cluster stands. One that has just started is given
// the time to choose a leader; one without a quorum is told of at once.
func (c *cli) awaitLeader(ctx context.Context, cl *client) (*controlv1.ClusterStatusResponse, error) {
	for n := 1; ; n++ {
		out, err := call(ctx, cl, controlv1.ControlServiceClient.ClusterStatus, &controlv1.ClusterStatusRequest{})
		if err != nil || len(out.Missing) > 0 || leads(out) || n == leaderLooks {
			return out, err
		}
		if err := c.wait(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// leads reports whether the cluster has a leader that has said where it is.
func leads(s *controlv1.ClusterStatusResponse) bool {
	return s.ClusterId != "" && slices.ContainsFunc(s.Coordinators, func(m *controlv1.Coordinator) bool {
		return m.Leader && m.Address != ""
	})
}

func (c *cli) clusterRemoveCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take a coordinator out of the cluster", Args: args("NAME"),
		SuggestFor: []string{"delete", "forget", "rm"},
		Long: `Take a coordinator out of the cluster, running or dead. It is refused if those that
stay and answer are no quorum; --force, with a reason, says that you know better.
The name is free afterwards: a new machine joins under it with a token. A coordinator
holds the CA's key: if it fell into wrong hands, replace the CA (` + "`dctl cluster ca rotate`" + `).`,
		Example: `dctl cluster remove c3
dctl cluster remove c3 --force -m "the rack burnt down, c2 is on its way"`,
	}
	cmd.Flags().BoolVar(&force, "force", false, "though no quorum may be left")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm("Remove coordinator " + args[0] + " from the cluster?"); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req := &controlv1.RemoveCoordinatorRequest{Mutation: cl.mutation(""), Name: args[0], Force: force}
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.RemoveCoordinator, req)
			if err != nil {
				return err
			}
			return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s is removed; stop it\n", args[0]) })
		})
	}
	return cmd
}

func printCluster(w io.Writer, s *controlv1.ClusterStatusResponse) {
	fmt.Fprintln(w, output.Line(fmt.Sprintf("cluster %s  version %s", s.ClusterId, s.Version)))
	fmt.Fprintf(w, "epoch %d  term %d  index %d\n", s.Epoch, s.Term, s.Index)
	fmt.Fprintf(w, "%s, %d connected, %s in flight\n", output.Count(int(s.Hosts), "host"), s.Connected,
		output.Count(int(s.Deployments), "deployment"))
	if s.Held != "" {
		fmt.Fprintf(w, "HELD in epoch %d: %s; hosts report and nothing is decided until `dctl cluster activate %d`\n",
			s.Epoch, output.Line(s.Held), s.Epoch)
	}
	switch {
	case s.EverybodyAdmin && s.AccessIndex == 0:
		fmt.Fprintln(w, "EVERY OPERATOR IS ADMIN: no access.yaml is in force (`dctl access apply`)")
	case s.EverybodyAdmin:
		fmt.Fprintf(w, "EVERY OPERATOR IS ADMIN by access.yaml, index %d\n", s.AccessIndex)
	case s.AccessIndex != 0:
		fmt.Fprintf(w, "access.yaml is in force, index %d\n", s.AccessIndex)
	}
	if s.HistoryTrouble != "" {
		fmt.Fprintf(w, "HISTORY IS NOT MOVED: %s\n", output.Line(s.HistoryTrouble))
	}
	fmt.Fprintf(w, "quorum %d of %s", s.Quorum, output.Count(voters(s), "voter"))
	if len(s.Missing) > 0 {
		fmt.Fprintf(w, ", MISSING %s", output.Line(strings.Join(s.Missing, ", ")))
	}
	if !slices.ContainsFunc(s.Coordinators, func(m *controlv1.Coordinator) bool { return m.Leader }) {
		fmt.Fprint(w, ", NO LEADER")
	}
	fmt.Fprintf(w, "; the CA's certificate: %s\n", life(s.CaEndsMs))
	if s.NextRingKey != "" {
		fmt.Fprint(w, "the ring's key is being replaced")
		if len(s.WithoutRingKey) > 0 {
			fmt.Fprintf(w, "; it waits for %s", output.Line(strings.Join(s.WithoutRingKey, ", ")))
		}
		fmt.Fprintln(w)
	}
	var rows []string
	for _, m := range s.Coordinators {
		role := "learner"
		if m.Voter {
			role = "voter"
		}
		if m.Leader {
			role = "leader"
		}
		alive := "alive"
		if !m.Alive {
			alive = "DEAD"
		}
		rows = append(rows, output.Cells(
			m.Name, role, alive, m.Address, besides(m.Address, m.RaftAddress), m.Streams, life(m.CertificateEndsMs),
			output.ShortVersion(m.Version)))
	}
	// a broken pipe ends the program anyway
	_ = output.Table(w, "NAME\tROLE\tSTATE\tAPI\tRAFT\tAGENTS\tCERT\tVERSION", rows)
	printTroubles(w, s)
}

// besides is an address beside another one: of the same host the port alone.
func besides(first, second string) string {
	host, _, err := net.SplitHostPort(first)
	same, port, err2 := net.SplitHostPort(second)
	if errors.Join(err, err2) != nil || same != host {
		return second
	}
	return ":" + port
}

func printTroubles(w io.Writer, s *controlv1.ClusterStatusResponse) {
	for _, m := range s.Coordinators {
		if m.Trouble != "" {
			fmt.Fprintf(w, "%s is no voter yet: %s\n", output.Line(m.Name), output.Line(m.Trouble))
		}
	}
}

func voters(s *controlv1.ClusterStatusResponse) (n int) {
	for _, m := range s.Coordinators {
		if m.Voter {
			n++
		}
	}
	return n
}

// life is how long a certificate lives from now on, or since when it does not.
func life(endsMs int64) string {
	switch d := time.Until(time.UnixMilli(endsMs)); {
	case endsMs == 0:
		return "unknown"
	case d <= 0:
		return "ENDED " + output.Moment(endsMs)
	case d > 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	default:
		return d.Round(time.Second).String()
	}
}

func (c *cli) loginCommand() *cobra.Command {
	tokenFile := ""
	cmd := &cobra.Command{
		Use: "login NAME --coordinator ADDRESSES (--credentials DIR | " +
			"--token-file FILE)", Short: "Remember a cluster as a context", Args: args("NAME"),
		Long: `Remember where a cluster is and which credentials to show it. The cluster is asked
first, so a context that is written works. With --token-file the credential is
made: the token, from ` + "`dctl token create --role operator --name YOU`" + `, is spent and names
you in the history. The folder stays where it is.

The certificate is renewed in passing, by any command, when two thirds of its life
have passed. One that has ended for want of use comes back by a token for the same
name and folder: your key proves that you are you.`,
		Example: `dctl login prod -C coord-1:7100,coord-2:7100 --credentials ~/.config/groundswell/prod
dctl login prod -C coord-1:7100 --token-file ann.token
dctl --context prod status`,
	}
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with a token of role operator, - for standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(c.flags.coordinators) == 0 {
			return usage("--coordinator is missing; for instance:\n%s", indent(cmd.Example))
		}
		if tokenFile != "" {
			if err := c.enrol(cmd, args[0], tokenFile); err != nil {
				return err
			}
		}
		if err := need(cmd, "credentials", c.flags.credentials); err != nil {
			return err
		}
		return c.login(cmd, args[0])
	}
	return cmd
}

// enrol spends a token for a credential, in the folder that is named or beside
// the contexts file.
func (c *cli) enrol(cmd *cobra.Command, name, tokenFile string) error {
	token, err := identity.ReadToken(tokenFile)
	if err != nil {
		return err
	}
	if c.flags.credentials == "" {
		path, err := ContextsPath(c.getenv)
		if err != nil {
			return err
		}
		c.flags.credentials = filepath.Join(filepath.Dir(path), name)
	}
	old, err := identity.Load(c.flags.credentials)
	if err == nil && old.Valid(time.Now()) == nil && identity.Only(old.CA(), token.CA) != nil {
		return usage("%s holds a credential already; choose another folder with --credentials", c.flags.credentials)
	}
	who, err := agent.EnrolOperator(cmd.Context(), c.flags.coordinators, token, c.flags.credentials)
	if err == nil {
		fmt.Fprintf(c.err, "you are %s; the credential is in %s\n", who, c.flags.credentials)
	}
	return err
}

func (c *cli) login(cmd *cobra.Command, name string) error {
	dir, err := filepath.Abs(c.flags.credentials)
	if err != nil {
		return fmt.Errorf("find %s: %w", c.flags.credentials, err)
	}
	path, err := ContextsPath(c.getenv)
	if err != nil {
		return err
	}
	return c.with(func(cl *client) error {
		out, err := c.awaitLeader(cmd.Context(), cl)
		if err != nil {
			return err
		}
		where := Context{Coordinators: everyAddress(c.flags.coordinators, out), Credentials: dir}
		if err := WriteContext(path, name, where, true); err != nil {
			return err
		}
		return c.show(object{{"context", name}, {"cluster_id", out.ClusterId}, {"file", path}}, func(w io.Writer) {
			fmt.Fprintf(w, "context %s of cluster %s is in %s and current\n", name, output.Line(out.ClusterId), path)
		})
	})
}

// learn adds to the context in use what the cluster says of where its coordinators
// are: some came after the login.
func (c *cli) learn(s *controlv1.ClusterStatusResponse) error {
	path, err := ContextsPath(c.getenv)
	if err != nil || len(c.flags.coordinators) > 0 {
		return nil // there is no context in use
	}
	return changeContexts(path, func(all *Contexts) bool {
		name := cmp.Or(c.flags.context, all.Current)
		ctx, known := all.Contexts[name]
		now := everyAddress(ctx.Coordinators, s)
		if !known || len(now) == len(ctx.Coordinators) || len(now) > mostAddresses {
			return false
		}
		ctx.Coordinators = now
		all.Contexts[name] = ctx
		return true
	})
}

// mostAddresses bounds those of a context, of a cluster whose coordinators come and
// go.
const mostAddresses = 16

// everyAddress is what was given and then what the cluster says of the others:
// the one that was named is not always the one that lives.
func everyAddress(given []string, s *controlv1.ClusterStatusResponse) []string {
	out := slices.Clone(given)
	for _, c := range s.Coordinators {
		host, _, err := net.SplitHostPort(c.Address)
		if ip := net.ParseIP(host); err != nil || host == "" || ip.IsUnspecified() || slices.Contains(out, c.Address) {
			continue // nobody reaches it there
		}
		out = append(out, c.Address)
	}
	return out
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of dctl", Args: upTo(0), Example: "dctl version --output json",
		RunE: func(*cobra.Command, []string) error {
			v, revision := version()
			return c.show(object{{"version", v}, {"revision", revision}},
				func(w io.Writer) { fmt.Fprintln(w, "dctl", v, revision) })
		},
	}
}

// version is what the build knows of itself.
func version() (version, revision string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return info.Main.Version, revision
}
