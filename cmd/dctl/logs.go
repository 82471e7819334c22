package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

func (c *cli) logsCommand() *cobra.Command {
	var req controlv1.LogsRequest
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Show what hooks wrote", Args: args("ID"),
		Long: "Show what the hooks of a deployment wrote, whole, read from the hosts: of one host,\nor of those that " +
			"failed, else of all. On a terminal control characters are spelled out.",
		Example: `dctl logs 01JD4Z --failed
dctl logs 01JD4Z --host web-07 --event ValidateService
dctl logs 01JD4Z --host web-07 -f`,
	}
	cmd.Flags().StringVar(&req.Host, "host", "", "host name or id")
	cmd.Flags().StringVar(&req.Event, "event", "", "lifecycle event, such as ApplicationStart")
	cmd.Flags().StringVar(&req.App, "app", "", "application")
	cmd.Flags().BoolVar(&req.Failed, "failed", false, "only hooks that failed")
	cmd.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on as they write")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Deployment = args[0]
		return c.with(func(cl *client) error { return cl.logs(cmd, &req) })
	}
	return cmd
}

func (cl *client) logs(cmd *cobra.Command, req *controlv1.LogsRequest) error {
	m, stream, err := receive(cmd.Context(), cl, func(api controlv1.ControlServiceClient,
		ctx context.Context,
	) (grpc.ServerStreamingClient[controlv1.LogsResponse], error) {
		return api.Logs(ctx, req)
	})
	out := logWriter{c: cl.cli}
	for ; err == nil; m, err = stream.Recv() {
		if err := out.write(m); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		return out.close()
	}
	out.end()
	return err
}

// logWriter prints pieces of output below headings that say whose they are.
type logWriter struct {
	c       *cli
	of      string // the heading of what was written last
	open    bool   // the last line has no end yet
	failed  int
	answers int
}

func (l *logWriter) write(m *controlv1.LogsResponse) error {
	l.answers++
	if m.Error != "" {
		l.failed++
	}
	if l.c.machine() {
		return l.c.emit(object{
			{"host", m.Host}, {"event", m.Event}, {"script", m.Script}, {
				"data",
				strings.ToValidUTF8(string(m.Data), "\uFFFD"),
			}, {"error", m.Error},
		})
	}
	if m.Error != "" {
		fmt.Fprintf(l.c.err, "%s: %s\n", output.Line(m.Host), output.Line(m.Error))
		return nil
	}
	l.heading(m)
	return l.data(m.Data)
}

func (l *logWriter) heading(m *controlv1.LogsResponse) {
	of := strings.TrimSpace(fmt.Sprintf("%s %s %s", output.Line(m.Host), output.Line(m.Event), output.Line(m.Script)))
	if of == l.of {
		return
	}
	l.end()
	l.of = of
	fmt.Fprintf(l.c.out, "==> %s <==\n", of)
}

func (l *logWriter) data(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	text := string(data)
	l.open = !strings.HasSuffix(text, "\n")
	if l.c.outTTY {
		text = output.Clean(strings.ReplaceAll(text, "\r\n", "\n"))
	}
	_, err := io.WriteString(l.c.out, text)
	return err
}

// end ends a line that the output left open.
func (l *logWriter) end() {
	if l.open && !l.c.machine() {
		fmt.Fprintln(l.c.out)
	}
	l.open = false
}

func (l *logWriter) close() error {
	l.end()
	switch {
	case l.answers == 0 && !l.c.machine():
		fmt.Fprintln(l.c.err, "no output: no hook has written any")
	case l.failed > 0 && l.failed == l.answers:
		return silent(exitOther)
	}
	return nil
}
