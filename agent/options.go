package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/naming"
)

// Options configures an agent. Name, Zone and Root are required; the zero
// value of every other field takes its default.
type Options struct {
	// Name is what people call the host; it may move to another machine.
	Name string
	// Zone is the failure domain of the host, Region the larger one.
	Zone, Region string
	// Labels are what deployment groups select by.
	Labels map[string]string
	// Version of the program, for people.
	Version string

	// Root is the folder of everything durable. Two agents never share one.
	Root string
	// InstallRoot is put before every destination of an appspec. Default "/".
	InstallRoot string
	// Env is handed to every hook and command probe, and ${NAME} in the
	// address of a probe stands for its values.
	Env map[string]string
	// Applications lists what may be deployed here, whatever a coordinator says; empty
	// allows all.
	Applications []string
	// RunAs lists the users that hooks may name; empty allows all.
	RunAs []string
	// Stores are the places that bundles may be fetched from, whatever a coordinator
	// signs; empty allows all.
	Stores []Place
	// Bandwidth is how many bytes a second all fetching of this host takes together, under
	// permits too; 0 is any.
	Bandwidth int64

	// TrafficCommands are what groups may name to take the host out of a pool and to
	// put it back: programs, by absolute path, with their arguments.
	TrafficCommands map[string][]string
	// TrafficFiles are the folders in which files of groups may lie that are there while
	// the host serves.
	TrafficFiles []string
	// TrafficPorts are the ports that groups may keep new connections from.
	TrafficPorts []int

	// Confine is what every hook is not to have.
	Confine hooks.Confinement

	// Coordinators are addresses (host:port) for agents. They are needed to
	// enrol; afterwards coordinators tell of all of them, which is remembered.
	Coordinators []string
	// GossipBind is the address of gossip, TCP and UDP; port 0 takes a free
	// one. Default "0.0.0.0:7103".
	GossipBind string
	// Token is asked for the join token when the host has no identity yet.
	Token func() (identity.Token, error)
	// Document is asked in its place, where Token is nil: for who this machine is,
	// signed by a third party that the coordinators believe. CA is the hash of the
	// cluster's CA then, which a token would bring.
	Document func(context.Context) ([]byte, error)
	CA       string
	// RefuseOutsideLinks refuses, when it is staged, a revision with a symlink
	// that leads out of it. Nobody here follows one either way.
	RefuseOutsideLinks bool
	// OpenStore opens the store at a URL with the host's own credentials
	// (instance role). Nil, the default: coordinators sign a URL for every
	// object, and the host needs no credentials.
	OpenStore func(ctx context.Context, url string) (artifacts.Store, error)

	// KeepReleases is how many revisions of an application stay on disk, and
	// KeepBytes how much room they may take (0: any). What runs, the last
	// good revision and the one before it always stay. Default 5.
	KeepReleases int
	KeepBytes    int64
	// CacheBytes bounds what the cache holds beyond the revisions on disk.
	// Default 2 GiB.
	CacheBytes int64
	// KeepFree is how much of the disk the cache leaves free when it is filled
	// again in idle times. Default as much as the largest revision on this
	// host takes.
	KeepFree int64
	// KeepRuns is how many finished hook runs keep their logs. Default 200.
	KeepRuns int
	// PruneAfter is how long the host must have been quiet before anything is
	// deleted: deleting a large tree slows the next install. Default 3 min.
	PruneAfter time.Duration

	// CompareEvery is the pause between comparisons of the installed files with
	// what the last hook left. Default 10 min; negative is never.
	CompareEvery time.Duration

	// StopGrace is how long Run, told to stop, waits for a hook that runs.
	// Default 0: the hook goes on under its supervisor, the next agent adopts
	// it.
	StopGrace time.Duration
	// Supervisor is the program that supervises hooks: one that calls
	// hooks.MaybeSupervise. Default this program.
	Supervisor string
	// Cgroup is the folder below which hooks get cgroups; empty finds the
	// host's, "off" uses none.
	Cgroup string

	// SlowStaging is how often a staging that is not done yet is a warning.
	// Default 1 min.
	SlowStaging time.Duration

	// Dial replaces TCP, for tests in memory; nil is TCP. Ring replaces gossip's
	// sockets in the same way.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Ring *gossip.Network

	// Log gets what happens. Default slog.Default().
	Log *slog.Logger
	// Ready is called once, when the host has its identity, gossips, and its
	// targets are resumed; a coordinator may still be out of reach.
	Ready func(Status)
	// Beat is called every BeatEvery while the agent is alive and its journal
	// can be written: what a watchdog wants to hear. Zero is never.
	Beat      func()
	BeatEvery time.Duration
	// PreferEvery is how often a session looks whether the coordinator that
	// this host belongs to is back. Default 1 min.
	PreferEvery time.Duration
	// Relax is called some seconds after work has ended, to give memory back.
	Relax func()
}

// Status is what an agent says of itself when it is ready.
type Status struct {
	Host    string // id
	Name    string
	Gossip  string // host:port
	Targets []string
}

// envPattern is what a variable may be called.
var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate answers why an agent cannot run with these options, all reasons at
// once.
func (o Options) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := naming.CheckHost(o.Name); err != nil {
		wrong("%w; set --name", err)
	}
	for _, v := range []struct{ what, text string }{{"zone", o.Zone}, {"region", o.Region}} {
		if err := naming.CheckText(v.what, v.text, naming.LongestHost); err != nil {
			errs = append(errs, err)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		if err := naming.CheckText("label", k+"="+o.Labels[k], 1024); err != nil {
			errs = append(errs, err)
		}
	}
	if o.Zone == "" {
		wrong("zone: every host lies in one, because no two zones are put at risk at once; set --zone")
	}
	if o.Root == "" {
		wrong("root: no folder for the agent's state; set --root")
	}
	for _, a := range o.Coordinators {
		if _, _, err := net.SplitHostPort(a); err != nil {
			wrong("coordinator %q: it must be host:port, such as 10.0.0.11:7101", a)
		}
	}
	if _, _, err := net.SplitHostPort(cmp.Or(o.GossipBind, defaultGossip)); err != nil {
		wrong("gossip address %q: it must be host:port or :port", o.GossipBind)
	}
	for _, k := range slices.Sorted(maps.Keys(o.Env)) {
		if !envPattern.MatchString(k) {
			wrong("env %q: a variable's name is letters, digits and '_', and begins with no digit", k)
		}
	}
	for _, n := range []int64{
		int64(o.KeepReleases), o.KeepBytes, o.CacheBytes, o.KeepFree, int64(o.KeepRuns), int64(o.PruneAfter),
		int64(o.StopGrace),
	} {
		if n < 0 {
			wrong("a limit or time is negative: %d", n)
		}
	}
	return errors.Join(errs...)
}

const defaultGossip = "0.0.0.0:7103"

func (o Options) withDefaults() Options {
	o.InstallRoot = cmp.Or(o.InstallRoot, "/")
	for _, dir := range []*string{&o.Root, &o.InstallRoot} {
		if abs, err := filepath.Abs(*dir); err == nil {
			*dir = abs // hooks have another working directory
		}
	}
	o.GossipBind = cmp.Or(o.GossipBind, defaultGossip)
	if host, port, err := net.SplitHostPort(o.GossipBind); err == nil && host == "" {
		o.GossipBind = net.JoinHostPort("0.0.0.0", port)
	}
	o.KeepReleases = cmp.Or(o.KeepReleases, 5)
	o.CacheBytes = cmp.Or(o.CacheBytes, 2<<30)
	o.KeepRuns = cmp.Or(o.KeepRuns, 200)
	o.PreferEvery = cmp.Or(o.PreferEvery, preferEvery)
	o.PruneAfter = cmp.Or(o.PruneAfter, 3*time.Minute)
	o.CompareEvery = cmp.Or(o.CompareEvery, 10*time.Minute)
	o.SlowStaging = cmp.Or(o.SlowStaging, time.Minute)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Relax == nil {
		o.Relax = func() {}
	}
	return o
}

// jitter waits for PreferEvery, give or take half, and reports whether ctx let
// it.
func (o Options) jitter(ctx context.Context) bool {
	return backoff.Pause(ctx, o.PreferEvery/2+rand.N(o.PreferEvery))
}

// path is a folder or file below the root.
func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.Root}, elem...)...)
}

// dialer is what a connection to a coordinator needs to go the way of Dial.
func (o Options) dialer() []grpc.DialOption {
	if o.Dial == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(o.Dial)}
}
