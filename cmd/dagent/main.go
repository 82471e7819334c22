// Command dagent is the host daemon: it runs deployments on its machine.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/discover"
	"github.com/groundswell/groundswell/internal/memory"
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
	doctor := len(args) > 0 && args[0] == "doctor"
	if doctor {
		args = args[1:]
	}
	s, version, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case version:
		_, _ = fmt.Fprintln(stdout, "dagent", buildVersion()) // nobody to tell
		return 0
	case err == nil && doctor:
		err = examine(ctx, s, stdout)
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
	memory.Limit(40) // the heap of an idle agent is below 8 MiB: a tight collection costs nothing
	log, err := s.logger(stderr)
	if err != nil {
		return usageError{err}
	}
	o, err := s.options()
	if err != nil {
		return usageError{err}
	}
	if err := askSurroundings(ctx, s, &o); err != nil {
		return err
	}
	o.Version, o.Log, o.Relax = buildVersion(), log, memory.Relax
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		// two may be late before the service manager acts
		o.BeatEvery = every / 3
		o.Beat = func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) } // nobody to tell
	}
	o.Ready = func(st agent.Status) {
		if err := ready(stdout, s.LogFormat, st); err != nil {
			log.Warn("cannot tell that the agent is ready", "error", err)
		}
	}
	a, err := agent.New(o)
	if err != nil {
		return usageError{err}
	}
	log.Info("agent starts", "version", o.Version, "root", o.Root, "zone", o.Zone)
	stopping := context.AfterFunc(ctx, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) })
	defer stopping()
	return a.Run(ctx)
}

// metadata is where EC2's metadata service is.
func metadata() discover.EC2Options {
	return discover.EC2Options{Endpoint: os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")}
}

// instanceDocument is what AWS says that this machine is, signed.
func instanceDocument(ctx context.Context) ([]byte, error) {
	d, err := discover.EC2Document(ctx, metadata())
	if err != nil {
		return nil, fmt.Errorf("joinMethod ec2: %w", err)
	}
	return d, nil
}

// askSurroundings fills in what is not stated and the instance's metadata know.
func askSurroundings(ctx context.Context, s settings, o *agent.Options) error {
	if s.FromEC2Tags {
		if err := addTags(ctx, o); err != nil {
			return err
		}
	}
	if s.JoinMethod != "ec2" || o.Zone != "" && o.Region != "" {
		return nil
	}
	zone, region, err := place(ctx, filepath.Join(o.Root, "ec2-placement"))
	if err != nil {
		return fmt.Errorf("joinMethod ec2, and zone or region are not stated: %w", err)
	}
	o.Zone, o.Region = cmp.Or(o.Zone, zone), cmp.Or(o.Region, region)
	return nil
}

// place is where the instance is. It is remembered in a file: an instance does not
// move, and an agent starts though the metadata service is away.
func place(ctx context.Context, file string) (zone, region string, err error) {
	if b, err := os.ReadFile(file); err == nil {
		if zone, region, ok := strings.Cut(strings.TrimSpace(string(b)), " "); ok {
			return zone, region, nil
		}
	}
	if zone, region, err = discover.EC2Zone(ctx, metadata()); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", "", err
	}
	return zone, region, os.WriteFile(file, []byte(zone+" "+region+"\n"), 0o600)
}

// addTags lays the labels under those that are stated.
func addTags(ctx context.Context, o *agent.Options) error {
	tags, err := discover.EC2Tags(ctx, metadata())
	if err != nil {
		return fmt.Errorf("fromEC2Tags: %w", err)
	}
	maps.Copy(tags, o.Labels)
	o.Labels = tags
	return nil
}

// examine prints what Doctor finds. It fails if something does not work.
func examine(ctx context.Context, s settings, stdout io.Writer) error {
	o, err := s.options()
	if err != nil {
		return usageError{err}
	}
	var checks []agent.Check
	if s.JoinMethod == "ec2" {
		c := agent.Check{Name: "EC2 document", Level: agent.CheckOK, Text: "readable"}
		_, err := instanceDocument(ctx)
		if err := errors.Join(err, askSurroundings(ctx, settings{JoinMethod: "ec2"}, &o)); err != nil {
			c.Level, c.Text = agent.CheckFailed, err.Error()
		}
		checks = append(checks, c)
	}
	checks = append(checks, agent.Doctor(ctx, o)...)
	if s.FromEC2Tags {
		c := agent.Check{Name: "EC2 tags", Level: agent.CheckOK, Text: "readable"}
		if err := addTags(ctx, &o); err != nil {
			c.Level, c.Text = agent.CheckFailed, err.Error()
		}
		checks = append(checks, c)
	}
	failed := 0
	for _, c := range checks {
		if c.Level == agent.CheckFailed {
			failed++
		}
		if _, err := fmt.Fprintf(stdout, "%-8s %-13s %s\n", c.Level, c.Name, c.Text); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return nil
}

// ready tells whoever started the agent, in one line of the log's format, and
// the service manager if there is one.
func ready(stdout io.Writer, format string, st agent.Status) error {
	line := map[string]any{
		"event": "ready", "host": st.Host, "name": st.Name, "gossip": st.Gossip,
		"targets": st.Targets,
	}
	var err error
	if format == "text" {
		_, err = fmt.Fprintf(stdout, "ready: host %s, id %s, %d targets\n", st.Name, st.Host, len(st.Targets))
	} else {
		err = json.NewEncoder(stdout).Encode(line)
	}
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
