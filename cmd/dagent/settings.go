package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/artifacts/stores"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/identity"
)

// defaultFile is read if it is there and no other is named.
const defaultFile = "/etc/groundswell/agent.yaml"

// settings is agent.yaml; DAGENT_* variables and flags lie over it.
type settings struct {
	Name          string            `yaml:"name"`
	Zone          string            `yaml:"zone"`
	Region        string            `yaml:"region"`
	Labels        map[string]string `yaml:"labels"`
	Coordinators  []string          `yaml:"coordinators"`
	Root          string            `yaml:"root"`
	InstallRoot   string            `yaml:"installRoot"`
	GossipBind    string            `yaml:"gossipBind"`
	JoinTokenFile string            `yaml:"joinTokenFile"`
	JoinMethod    string            `yaml:"joinMethod" enum:"token ec2"`
	CA            string            `yaml:"ca"`
	Env           map[string]string `yaml:"env"`
	Applications  []string          `yaml:"applications"`
	RunAs         []string          `yaml:"runAs"`
	Stores        []agent.Place     `yaml:"stores"`
	Bandwidth     config.Size       `yaml:"bandwidth"`
	Credentials   string            `yaml:"credentials" enum:"presigned instance-role"`
	OutsideLinks  string            `yaml:"outsideLinks" enum:"keep refuse"`
	KeepReleases  int               `yaml:"keepReleases" min:"2"`
	KeepBytes     config.Size       `yaml:"keepBytes"`
	CacheBytes    config.Size       `yaml:"cacheBytes"`
	KeepFree      config.Size       `yaml:"keepFree"`
	KeepRuns      int               `yaml:"keepRuns" min:"1"`
	PruneAfter    time.Duration     `yaml:"pruneAfter"`
	CompareEvery  time.Duration     `yaml:"compareEvery"`
	StopGrace     time.Duration     `yaml:"stopGrace"`
	Cgroup        string            `yaml:"cgroup"`
	LogLevel      string            `yaml:"logLevel" enum:"debug info warn error"`
	LogFormat     string            `yaml:"logFormat" enum:"json text"`
	FromEC2Tags   bool              `yaml:"fromEC2Tags"`
	NoNewPrivs    bool              `yaml:"noNewPrivileges"`
	Rlimits       map[string]string `yaml:"rlimits"`

	TrafficCommands map[string][]string `yaml:"trafficCommands"`
	TrafficFiles    []string            `yaml:"trafficFiles"`
	TrafficPorts    []int               `yaml:"trafficPorts" min:"1" max:"65535"`
}

func defaults() settings {
	name, _ := os.Hostname() // an empty name is refused later, with the flag to set
	return settings{
		Name: name, Root: "/var/lib/groundswell/agent", InstallRoot: "/", GossipBind: "0.0.0.0:7103",
		Credentials: "presigned", OutsideLinks: "keep", JoinMethod: "token",
		KeepReleases: 5, CacheBytes: 2 << 30, KeepRuns: 200, PruneAfter: 3 * time.Minute,
		CompareEvery: 10 * time.Minute, LogLevel: "info", LogFormat: "json",
	}
}

// options are the agent's.
func (s settings) options() (agent.Options, error) {
	o := agent.Options{
		Name: s.Name, Zone: s.Zone, Region: s.Region, Labels: s.Labels, Root: s.Root, InstallRoot: s.InstallRoot,
		Env:          s.Env,
		Applications: s.Applications, RunAs: s.RunAs, TrafficCommands: s.TrafficCommands, TrafficFiles: s.TrafficFiles,
		TrafficPorts: s.TrafficPorts,
		Stores:       s.Stores, Bandwidth: int64(s.Bandwidth),
		Coordinators: s.Coordinators, GossipBind: s.GossipBind, KeepReleases: s.KeepReleases,
		KeepBytes: int64(s.KeepBytes), CacheBytes: int64(s.CacheBytes), KeepFree: int64(s.KeepFree),
		KeepRuns: s.KeepRuns, PruneAfter: s.PruneAfter,
		StopGrace: s.StopGrace, Cgroup: s.Cgroup,
		Token: func() (identity.Token, error) { return identity.ReadToken(s.JoinTokenFile) },
	}
	if s.JoinMethod == "ec2" {
		if b, err := hex.DecodeString(s.CA); err != nil || len(b) != 16 {
			return o, fmt.Errorf("ca: %q is no hash of a CA, of 32 digits; joinMethod ec2 needs it, "+
				"so that the host knows whom it joins; `dctl cluster ca status` shows it", s.CA)
		}
		o.CA = s.CA
		if s.JoinTokenFile == "" && os.Getenv(identity.TokenVariable) == "" {
			o.Token, o.Document = nil, instanceDocument
		}
	}
	if o.CompareEvery = s.CompareEvery; s.CompareEvery <= 0 {
		o.CompareEvery = -1
	}
	o.RefuseOutsideLinks = s.OutsideLinks == "refuse"
	if s.Credentials == "instance-role" {
		o.OpenStore = stores.Open
	}
	o.Confine.NoNewPrivileges, o.Confine.Rlimits = s.NoNewPrivs, map[string]uint64{}
	for name, value := range s.Rlimits {
		n, err := hooks.ParseRlimit(name, value)
		if err != nil {
			return o, fmt.Errorf("rlimits: %w", err)
		}
		o.Confine.Rlimits[name] = n
	}
	return o, nil
}

const intro = `dagent runs deployments on this host. It enrols once, with a join token that
` + "`dctl token create --role agent`" + ` makes, and then needs no token any more.
The token comes from a file, standard input or GROUNDSWELL_JOIN_TOKEN, never
from the command line.

usage:
  dagent [flags]
  dagent doctor [flags]    say what this host lacks, and change nothing

example:
  dagent --name web-1 --zone eu-1a --label role=web --coordinator 10.0.0.11:7101 --join-token-file token
  dagent --config ` + defaultFile + `

Flags lie over DAGENT_* variables (DAGENT_ZONE), those over the file, that over
the defaults.

flags:
`

// line is what the command line says.
type line struct {
	flags        *flag.FlagSet
	file         string
	version      bool
	ec2, nnp     bool
	rlimits      pairs
	coordinators list
	runAs        list
	labels, env  pairs
}

func newLine() *line {
	l := &line{flags: flag.NewFlagSet("dagent", flag.ContinueOnError)}
	f := l.flags
	f.SetOutput(io.Discard)
	f.StringVar(&l.file, "config", "", "configuration `FILE`, YAML (default "+defaultFile+" if it is there)")
	f.BoolVar(&l.version, "version", false, "say the version and end")
	f.Var(&l.coordinators, "coordinator", "`ADDRESS` of a coordinator's port for agents, host:port (repeat, or commas)")
	f.Var(&l.labels, "label", "`K=V` that groups select by (repeat)")
	f.Var(&l.env, "env", "`K=V` for every hook (repeat)")
	f.BoolVar(&l.ec2, "from-ec2-tags", false,
		"take the tags of this EC2 instance as labels; labels that are stated win")
	f.BoolVar(&l.nnp, "no-new-privileges", false,
		"hooks, and what they start, gain no privileges by setuid programs; sudo then fails")
	f.Var(&l.rlimits, "rlimit", "`NAME=N` resource limit of hooks, such as nofile=65536 (repeat)")
	f.Var(&l.runAs, "run-as", "`USER` that hooks may run as (repeat, or commas; default any)")
	for _, d := range []struct{ name, usage string }{
		{"name", "`NAME` of the host (default the machine's)"},
		{"zone", "`ZONE`, the failure domain of the host"},
		{"region", "`REGION` of the host"},
		{"root", "`DIR` of everything durable (default /var/lib/groundswell/agent)"},
		{"install-root", "`DIR` that is put before every destination of an appspec (default /)"},
		{"gossip-bind", "`ADDRESS` of gossip, TCP and UDP; port 0 takes a free one (default 0.0.0.0:7103)"},
		{"join-token-file", "`FILE` with the join token, - for standard input; else GROUNDSWELL_JOIN_TOKEN"},
		{
			"join-method", "`HOW` a new host is let in: token (default), or ec2, by the instance's identity document, " +
				"where no token is given",
		},
		{"ca", "`HASH` of the cluster's CA, for --join-method ec2; dctl cluster ca status shows it"},
		{
			"credentials",
			"how bundles are read: presigned (by URLs from the coordinator, default) or instance-role `HOW`",
		},
		{"stores", "`URLS` below which bundles may be fetched, with commas (default any)"},
		{"bandwidth", "`SIZE` a second that all fetching takes at most (default any)"},
		{"outside-links", "what becomes of symlinks that lead out of their revision: keep (default) or refuse `HOW`"},
		{"keep-releases", "`N` revisions of an application stay on disk (default 5)"},
		{"keep-bytes", "`SIZE` that the revisions of an application may take (default any)"},
		{"cache-bytes", "`SIZE` of the cache of bundles (default 2GiB)"},
		{"keep-free", "`SIZE` that filling the cache in idle times leaves free (default: the largest revision here)"},
		{"keep-runs", "`N` finished hook runs keep their logs (default 200)"},
		{"prune-after", "`TIME` without work before anything is deleted (default 3m)"},
		{
			"compare-every",
			"`TIME` between comparisons of installed files with what the last hook left (default 10m; 0 never)",
		},
		{"stop-grace", "`TIME` to wait for a running hook when told to stop (default 0: the next agent adopts it)"},
		{"cgroup", "`DIR` below which hooks get cgroups, or off (default found)"},
		{"log-level", "`LEVEL`: debug, info, warn or error (default info)"},
		{"log-format", "`FORMAT` of the log on standard error: json or text (default json)"},
	} {
		f.String(d.name, "", d.usage)
	}
	return l
}

func (l *line) help(w io.Writer) {
	_, _ = io.WriteString(w, intro) // nobody to tell
	l.flags.VisitAll(func(f *flag.Flag) {
		arg, usage := flag.UnquoteUsage(f)
		_, _ = fmt.Fprintf(w, "  %-26s %s\n", "--"+f.Name+" "+arg, usage)
	})
}

// given answers the flags that were given, by name.
func (l *line) given() map[string]string {
	out := map[string]string{}
	l.flags.Visit(func(f *flag.Flag) { out[f.Name] = f.Value.String() })
	return out
}

// parse reads the command line and what lies below it.
func parse(args []string, stdout io.Writer) (s settings, version bool, err error) {
	l := newLine()
	if err := l.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			l.help(stdout)
			return s, false, err
		}
		return s, false, fmt.Errorf("%w; see dagent --help", err)
	}
	if l.flags.NArg() > 0 {
		return s, false, fmt.Errorf("unexpected argument %q; see dagent --help", l.flags.Arg(0))
	}
	if l.version {
		return s, true, nil
	}
	s, err = l.load(os.LookupEnv)
	return s, false, err
}

// load layers flags over environment over file over defaults. Labels and
// variables are added to those of the file, key by key.
func (l *line) load(lookup func(string) (string, bool)) (settings, error) {
	s := defaults()
	err := readFile(l.file, &s)
	if err != nil {
		return s, err
	}
	given := l.given()
	flags := config.Flags(func(name string) (string, bool) { v, ok := given[name]; return v, ok })
	named := flags.Name
	flags.Name = func(key string) string {
		if key == "coordinators" {
			return "--coordinator"
		}
		return named(key)
	}
	if err := config.Overlay(&s, config.Env("DAGENT", lookup), flags); err != nil {
		return s, err
	}
	l.labels.addTo(&s.Labels)
	l.env.addTo(&s.Env)
	l.rlimits.addTo(&s.Rlimits)
	return s, nil
}

func readFile(file string, s *settings) error {
	if file != "" {
		return config.Load(file, s)
	}
	if err := config.Load(defaultFile, s); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// pairs is a flag K=V that may be repeated.
type pairs map[string]string

func (p *pairs) String() string { return "" }

func (p *pairs) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return fmt.Errorf("%q is not K=V", s)
	}
	if *p == nil {
		*p = pairs{}
	}
	(*p)[k] = v
	return nil
}

func (p pairs) addTo(m *map[string]string) {
	if *m == nil && len(p) > 0 {
		*m = map[string]string{}
	}
	for k, v := range p {
		(*m)[k] = v
	}
}
