// Command dagent is the host daemon: it runs deployments on its machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/hooks"
)

func main() {
	hooks.MaybeSupervise()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake on the command line, in the environment or in the
// file: exit code 2.
type usageError struct{ error }

// run returns the exit code: 0 stopped, 2 wrong usage or configuration, 1 any
// other error.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, version, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case version:
		_, _ = fmt.Fprintln(stdout, "dagent", buildVersion()) // nobody to tell
		return 0
	case err == nil:
		err = serve(ctx, s, stdout, stderr)
	default:
		err = usageError{err}
	}
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "dagent:", err)
	var u usageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

// serve runs the agent until ctx ends.
func serve(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	limitMemory()
	log, err := s.logger(stderr)
	if err != nil {
		return usageError{err}
	}
	o := s.options()
	o.Version, o.Log, o.Relax = buildVersion(), log, relax
	o.Ready = func(st agent.Status) {
		if err := ready(stdout, st); err != nil {
			log.Warn("cannot tell that the agent is ready", "error", err)
		}
	}
	a, err := agent.New(o)
	if err != nil {
		return usageError{err}
	}
	log.Info("agent starts", "version", o.Version, "root", o.Root, "zone", o.Zone)
	return a.Run(ctx)
}

// ready tells whoever started the agent: one JSON line, and the service
// manager if there is one.
func ready(stdout io.Writer, st agent.Status) error {
	line := map[string]any{"event": "ready", "host": st.Host, "name": st.Name, "gossip": st.Gossip, "targets": st.Targets}
	err := json.NewEncoder(stdout).Encode(line)
	_, notified := daemon.SdNotify(false, daemon.SdNotifyReady)
	return errors.Join(err, notified)
}

func (s settings) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(w, o)
	if s.LogFormat == "text" {
		h = slog.NewTextHandler(w, o)
	}
	return slog.New(h).With("host", s.Name), nil
}

// buildVersion is the module's version, or the commit it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}
