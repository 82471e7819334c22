package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) hostsCommand() *cobra.Command {
	return family("hosts", "The fleet", c.hostsList(), c.hostsShow(), c.hostsLabel(), c.hostsApprove(),
		c.hostsForget(), c.hostsRevoke(), c.hostsSplit(),
		c.hostsCordon("cordon", "Keep a host out of new work and out of evidence", false), c.hostsCordon("uncordon",
			"Take a host back", true), c.hostsDrain(), c.hostsUndrain())
}

func (c *cli) hostsList() *cobra.Command {
	var req controlv1.ListHostsRequest
	wait := 0
	cmd := &cobra.Command{
		Use: "list", Short: "List hosts", Args: upTo(0),
		Example: `dctl hosts list --app www
dctl hosts list --role web --zone eu-1a --host 'web-0*'
dctl hosts list -l env=prod
dctl hosts list --wait 2`,
	}
	f := cmd.Flags()
	f.StringVarP(&req.Role, "role", "R", "", "value of the label role")
	f.StringSliceVarP(&req.Selector, "selector", "l", nil, "labels, key=value")
	f.StringVar(&req.Zone, "zone", "", "zone")
	f.StringSliceVar(&req.Host, "host", nil, "names; * at the end matches")
	c.appFlag(cmd, &req.App)
	f.StringVar(&req.Group, "group", "", "deployment group of --app")
	f.IntVar(&wait, "wait", 0, "wait until so many of them are connected, at most --timeout")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if req.Group != "" && req.App == "" {
			return usage("--group is a group of an application; add --app")
		}
		return c.with(func(cl *client) error {
			out, err := c.awaitHosts(cmd.Context(), cl, &req, wait)
			if err != nil {
				return err
			}
			if err := list(c, "hosts", out.Hosts,
				"NAME\tZONE\tSTATE\tREVISION\tHEALTH\tVERSION", func(h *controlv1.Host) string {
					return hostRow(h, req.App)
				}); err != nil || c.machine() {
				return err
			}
			hostWords(c.err, out.Hosts)
			return nil
		})
	}
	return cmd
}

// awaitHosts lists hosts once enough of them are connected; hosts announce
// themselves, so there is nothing to do but ask again.
func (c *cli) awaitHosts(ctx context.Context, cl *client, req *controlv1.ListHostsRequest,
	want int,
) (*controlv1.ListHostsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.flags.timeout))
	defer cancel()
	for {
		out, err := allHosts(ctx, cl, req)
		if err != nil {
			return nil, err
		}
		n := 0
		for _, h := range out.Hosts {
			if h.State == "connected" {
				n++
			}
		}
		if n >= want {
			return out, nil
		}
		if c.wait(ctx, 100*time.Millisecond) != nil {
			return nil, fmt.Errorf("%d of %d hosts are connected after %s; look at the logs of the agents", n, want,
				c.flags.timeout)
		}
	}
}

// hostRow is one line a host that fits a terminal: of the application that was
// asked for, else of the few there are, else how many and how they fare.
func hostRow(h *controlv1.Host, app string) string {
	all := h.Targets
	if app != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(t *controlv1.Target) bool { return t.App != app })
	}
	var running, health []string
	if len(all) > hostApps {
		running, health = []string{output.Count(len(all), "application")}, healths(all)
		all = nil
	}
	for _, t := range all {
		if len(all) > 1 {
			running = append(running, t.App+"="+output.ShortName(t.Running))
			health = append(health, t.App+"="+t.Health)
		} else {
			running, health = append(running, output.ShortName(t.Running)), append(health, t.Health)
		}
	}
	state := h.State
	if h.Quarantine != "" {
		state += ", quarantined"
	}
	state += drainState(h.Drain)
	if h.Revoked != "" {
		state += ", revoked"
	}
	if h.Says != nil {
		state += ", unapproved"
	}
	if len(h.Namesakes) > 0 {
		state += ", namesake"
	}
	return output.Cells(h.Name, h.Zone, state, strings.Join(running, ","), strings.Join(health, ","),
		output.ShortVersion(h.Version))
}

// hostApps is how many applications of a host a list names.
const hostApps = 3

// healths is "38 healthy, 2 unhealthy", the sick first.
func healths(all []*controlv1.Target) []string {
	n := map[string]int{}
	for _, t := range all {
		n[t.Health]++
	}
	names := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		return cmp.Or(cmp.Compare(n[a], n[b]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", n[name], name)
	}
	return names
}

// hostWords explains the words of a list that are no everyday ones.
func hostWords(w io.Writer, hosts []*controlv1.Host) {
	has := func(state string) bool {
		return slices.ContainsFunc(hosts, func(h *controlv1.Host) bool { return h.State == state })
	}
	if len(hosts) == 0 {
		fmt.Fprintln(w, "no host matches")
	}
	if has("degraded") {
		fmt.Fprintln(w,
			"degraded: the host is known by gossip or by its connection, not by both; it takes work once connected")
	}
	if slices.ContainsFunc(hosts, func(h *controlv1.Host) bool { return h.Says != nil }) {
		fmt.Fprintln(w, "unapproved: its agent says that it is something else than what is written down, which "+
			"counts until then; `dctl hosts approve HOST`")
	}
	if slices.ContainsFunc(hosts, func(h *controlv1.Host) bool { return len(h.Namesakes) > 0 }) {
		fmt.Fprintln(w, "namesake: another host is called that too, so commands need its id (`dctl hosts show` and -o json "+
			"have it); `dctl hosts label ID --name OTHER`, or forget the one that is gone")
	}
	if slices.ContainsFunc(hosts, func(h *controlv1.Host) bool { return h.Revoked != "" }) {
		fmt.Fprintln(w, "revoked: its key counts no more; `dctl token create --host HOST` lets it come back, "+
			"`dctl hosts forget HOST` takes it out")
	}
	if slices.ContainsFunc(hosts, func(h *controlv1.Host) bool { return h.Quarantine != "" }) {
		fmt.Fprintln(w, "quarantined: no new work and no evidence for now; `dctl hosts show HOST` says why;\n"+
			"  one that came and went is back after 10 quiet minutes, or `dctl hosts uncordon HOST`")
	}
}

func (c *cli) hostsShow() *cobra.Command {
	var why bool
	cmd := &cobra.Command{
		Use: "show HOST", Short: "Show one host", Args: args("HOST"),
		Long: `Show one host: what each application runs there, what it should run (DESIRED), and
with --why what says so: a deployment in flight, the history of its wave, or a person
who left it out. LAST GOOD is where it would go back to. PERMIT is what lets it work
now: normal, or conditional for a host that does not serve anyway, whose agent gives
it back should the application serve after all. Its state is connected, degraded
(known by gossip or by its connection alone) or unreachable.`,
		Example: "dctl hosts show web-07\ndctl hosts show web-07 --why",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.GetHost,
					&controlv1.GetHostRequest{Host: args[0]})
				if err != nil {
					return err
				}
				return c.show(out.Host, func(w io.Writer) { printHost(w, out.Host, why) })
			})
		},
	}
	cmd.Flags().BoolVar(&why, "why", false, "say why each application should run what it should")
	return cmd
}

func printHost(w io.Writer, h *controlv1.Host, why bool) {
	fmt.Fprintln(w, output.Line(fmt.Sprintf("%s  id %s  zone %s  %s", h.GetName(), h.GetId(), h.GetZone(),
		h.GetState())))
	if h.GetQuarantine() != "" {
		fmt.Fprintln(w, output.Line("quarantined: "+h.Quarantine))
	}
	if h.GetDrain() != nil {
		fmt.Fprintln(w, output.Line(drainLine(h.Drain)))
	}
	if h.GetRevoked() != "" {
		fmt.Fprintln(w, output.Line("revoked by "+h.Revoked))
	}
	fmt.Fprintln(w, output.Line("labels: "+strings.Join(pairs(h.GetLabels()), " ")))
	if len(h.GetOutOf()) > 0 {
		fmt.Fprintln(w, output.Line("taken out of "+strings.Join(h.OutOf, ", ")))
	}
	if len(h.GetNamesakes()) > 0 {
		fmt.Fprintln(w, output.Line("of the same name: "+strings.Join(h.Namesakes, ", ")))
	}
	if h.GetSays() != nil {
		fmt.Fprintln(w, output.Line("its agent says: "+strings.Join(h.Differences, ", ")+
			"; that counts once approved (`dctl hosts approve "+h.Name+"`)"))
	}
	fmt.Fprintln(w, output.Line(fmt.Sprintf("agent %s, connected to %s", h.GetVersion(), h.GetCoordinator())))
	var rows []string
	for _, t := range h.GetTargets() {
		rows = append(rows, output.Cells(t.App, t.Group, output.ShortName(t.Running), output.ShortName(t.Desired),
			output.ShortName(t.LastGood), t.Health, t.Permit, t.Evidence))
	}
	// a broken pipe ends the program anyway
	_ = output.Table(w, "APP\tGROUP\tRUNNING\tDESIRED\tLAST GOOD\tHEALTH\tPERMIT\tEVIDENCE", rows)
	for _, t := range h.GetTargets() {
		if t.EditedFiles > 0 {
			fmt.Fprintln(w, output.Line(fmt.Sprintf("%s: %s not what the last deployment left: %s", t.App,
				are(int(t.EditedFiles), "installed file"), few(t.Edited, int(t.EditedFiles)))))
		}
		if why {
			fmt.Fprintln(w, output.Line(fmt.Sprintf("%s should run %s: %s", t.App, cmp.Or(t.Desired, "nothing"),
				t.Why)))
		}
	}
}

// are is "1 file is" or "2 files are".
func are(n int, what string) string {
	if n == 1 {
		return output.Count(n, what) + " is"
	}
	return output.Count(n, what) + " are"
}

// few is a list of the first names of so many.
func few(names []string, of int) string {
	text := strings.Join(names, ", ")
	if of > len(names) {
		text += fmt.Sprintf(" and %d more", of-len(names))
	}
	return text
}

func (c *cli) hostsCordon(use, short string, lift bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " HOST", Short: short, Args: args("HOST"),
		Long: "A cordoned host gets no new work, does not count as serving and is no evidence for a\ngate. What " +
			"runs on it is not touched. A host that comes and goes is quarantined in the\nsame way by itself, until " +
			"it has been quiet for 10 minutes.",
		Example: "dctl hosts " + use + " web-07 --reason \"disk is being replaced\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(func(cl *client) error {
				req := &controlv1.CordonHostRequest{Mutation: cl.mutation(""), Host: args[0], Lift: lift}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.CordonHost, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "%sed %s\n", use, args[0]) })
			})
		},
	}
}

func (c *cli) hostsForget() *cobra.Command {
	return &cobra.Command{
		Use: "forget HOST", Short: "Take a dead host out of its groups", Args: args("HOST"),
		SuggestFor: []string{"delete", "remove", "rm"},
		Long: "Take a host that is gone for good out of its groups. It no longer counts for capacity.\nA host " +
			"that is only unreachable comes back by itself and need not be forgotten.",
		Example: "dctl hosts forget web-07 --reason \"terminated\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm("Forget host " + args[0] + "? It no longer counts for capacity."); err != nil {
				return err
			}
			return c.with(func(cl *client) error {
				req := &controlv1.ForgetHostRequest{Mutation: cl.mutation(""), Host: args[0]}
				out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.ForgetHost, req)
				if err != nil {
					return err
				}
				return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "forgot %s\n", args[0]) })
			})
		},
	}
}

func (c *cli) hostsRevoke() *cobra.Command {
	unknown := false
	cmd := &cobra.Command{
		Use: "revoke HOST", Short: "End a host's credential", Args: args("HOST"),
		Long: `End a host's credential, at every coordinator and at once: its session ends too.
What runs on it is not touched. One that was forgotten can be revoked too. Only a token that was made for it
(` + "`dctl token create --host HOST`" + `) brings it back, with a new key. Until it is
forgotten (` + "`dctl hosts forget`" + `) the floor of its groups counts it.`,
		Example: "dctl hosts revoke web-07 --reason \"disk was stolen\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm("Revoke host " + args[0] + "? It needs a new token to come back."); err != nil {
				return err
			}
			return c.revoke(cmd, "agent", args[0], unknown)
		},
	}
	cmd.Flags().BoolVar(&unknown, "unknown", false,
		"also an id that the cluster does not know, after a restored backup")
	return cmd
}
