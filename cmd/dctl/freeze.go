package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) freezeCommand() *cobra.Command {
	var until string
	cmd := &cobra.Command{
		Short: "Hold every deployment, rollbacks apart",
		Long: `Hold every deployment in a scope, rollbacks apart, until it is lifted or until a
moment: a duration from now, or a date and time (in the zone of this machine, if it
names none). Frozen again, a scope has the newer freeze's end and reason.`,
		Example: `dctl freeze --app www --reason "trade fair"
dctl freeze --until 48h
dctl freeze --until "2026-12-27 08:00" --reason holidays`,
	}
	c.freezing(cmd, "freeze", func(req *controlv1.SetFreezeRequest) error {
		d, err := untilFlag(until, time.Now())
		req.ForMs = d.Milliseconds()
		return err
	})
	cmd.Flags().StringVar(&until, "until", "", "when the freeze ends by itself: a duration, or a date and time "+
		"(default: never)")
	return cmd
}

func (c *cli) unfreezeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Short:   "Lift the freeze of exactly that scope",
		Example: "dctl unfreeze --app www\ndctl unfreeze",
	}
	c.freezing(cmd, "unfreeze", func(req *controlv1.SetFreezeRequest) error {
		req.Lift = true
		return nil
	})
	return cmd
}

// freezing makes cmd one that sets or lifts the freeze of a scope.
func (c *cli) freezing(cmd *cobra.Command, use string, fill func(*controlv1.SetFreezeRequest) error) {
	var app, group string
	cmd.Use, cmd.Args = use+" [--app APP [--group GROUP]]", upTo(0)
	c.appFlag(cmd, &app)
	cmd.Flags().StringVar(&group, "group", "", "deployment group (default: every group of the application)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req := &controlv1.SetFreezeRequest{App: app, Group: group}
		if err := fill(req); err != nil {
			return err
		}
		return c.with(func(cl *client) error {
			req.Mutation = cl.mutation("")
			out, err := call(cmd.Context(), cl, controlv1.ControlServiceClient.SetFreeze, req)
			if err != nil {
				return err
			}
			text := use + ": accepted"
			if req.ForMs > 0 {
				text += ", until " + output.Moment(time.Now().UnixMilli()+req.ForMs)
			}
			return c.show(out, func(w io.Writer) { fmt.Fprintln(w, text) })
		})
	}
}

// untilFlag returns how long it is from now until what text says; 0 if it says
// nothing. What is not to come is refused.
func untilFlag(text string, now time.Time) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		at, err := parseMoment(text, now.Location())
		if err != nil {
			return 0, err
		}
		d = at.Sub(now)
	}
	if d = d.Truncate(time.Millisecond); d <= 0 {
		return 0, usage("--until %s is not to come: it is %s now; without --until a freeze has no end, "+
			"and `dctl unfreeze` ends one", text, output.Moment(now.UnixMilli()))
	}
	return d, nil
}

// parseMoment reads a date and time, in the zone if it names none.
func parseMoment(text string, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04",
		"2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly,
	} {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usage("--until %q is neither a duration nor a date and time; write for instance 90m, 2d, "+
		"%q or 2026-12-27T08:00:00Z", text, "2026-12-27 08:00")
}

// freezeText says what is frozen, by whom, since when, until when and why.
func freezeText(f *controlv1.Freeze) string {
	what := "everything"
	if f.App != "" {
		what = strings.TrimSpace(f.App + " " + f.Group)
	}
	text := fmt.Sprintf("FROZEN: %s, by %s since %s", what, f.Actor, output.Moment(f.SinceMs))
	if f.UntilMs > 0 {
		text += " until " + output.Moment(f.UntilMs)
	}
	if f.Reason != "" {
		text += ": " + f.Reason
	}
	return text
}
