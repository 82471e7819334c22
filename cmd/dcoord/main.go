// Command dcoord is the coordinator daemon.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/groundswell/groundswell/artifacts/stores"
	"github.com/groundswell/groundswell/coordinator"
	"github.com/groundswell/groundswell/coordinator/ec2"
	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/identity"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings is coordinator.yaml; flags and DCOORD_* variables lie over it.
type settings struct {
	Name      string   `yaml:"name"`
	Dir       string   `yaml:"dir"`
	API       string   `yaml:"api"`
	Agents    string   `yaml:"agents"`
	Raft      string   `yaml:"raft"`
	Gossip    string   `yaml:"gossip"`
	Debug     string   `yaml:"debug"`
	Advertise string   `yaml:"advertise"`
	Join      []string `yaml:"join"`
	TokenFile string   `yaml:"joinTokenFile"`
	LogLevel  string   `yaml:"logLevel" enum:"debug info warn error"`
	Gates     struct {
		Prometheus        string   `yaml:"prometheus"`
		WebhookSecretFile string   `yaml:"webhookSecretFile"`
		Webhooks          []string `yaml:"webhooks"`
	} `yaml:"gates"`
	Approvers map[string][]string `yaml:"approvers"`
	// Balancers are HAProxy's runtime APIs, by the name that groups know them by.
	Balancers map[string][]string `yaml:"balancers"`
	EC2       struct {
		Accounts     []string        `yaml:"accounts"`
		Regions      []string        `yaml:"regions"`
		Instances    []string        `yaml:"instances"`
		Certificates string          `yaml:"certificates"`
		Within       config.Duration `yaml:"within"`
		Tags         bool            `yaml:"tags"`
	} `yaml:"ec2"`
	// History is where deployments are moved to which have ended; every coordinator has
	// the same.
	History struct {
		Store string          `yaml:"store"`
		After config.Duration `yaml:"after"`
	} `yaml:"history"`
	// CertificateLife of what this coordinator issues; every one has the same.
	CertificateLife config.Duration `yaml:"certificateLife"`
	// DeadAfter is when the leader gives up a voter that does not answer.
	DeadAfter config.Duration `yaml:"deadAfter"`
	// DiskReserve is set aside for a disk that others fill.
	DiskReserve config.Size `yaml:"diskReserve"`
}

func defaults() settings {
	name, _ := os.Hostname() // an empty name is refused later, with the flag to set
	return settings{
		Name: name, Dir: "/var/lib/groundswell/coordinator", API: ":7100", Agents: ":7101", Raft: ":7102",
		Gossip: ":7103",
		Debug:  "127.0.0.1:7190", LogLevel: "info", DiskReserve: 64 << 20,
	}
}

// usage marks an error of the command line or a file: exit code 2.
type usage struct{ error }

// run returns the exit code: 0 stopped, 2 wrong usage or configuration, 1 else.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout, stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "dcoord:", err)
	var u usage
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

func command(stdout, stderr io.Writer) *cobra.Command {
	given := settings{}
	file, bootstrap := "", false
	cmd := &cobra.Command{
		Use:   "dcoord",
		Short: "Coordinator of Groundswell",
		Long: `dcoord decides: it replicates the state of all deployments with the other
coordinators of its cluster, and serves agents and operators.

The first coordinator of a cluster is started once with --bootstrap; it writes
the operator's credential to DIR/operator. Others join with a token that
` + "`dctl token create --role coordinator`" + ` makes. Later starts need neither.

The file may also say whom the leader asks the gates of deployments, the same on
every coordinator; DCOORD_GATES_PROMETHEUS and DCOORD_GATES_WEBHOOK_SECRET_FILE
say it too:

  gates:
    prometheus: http://prometheus.example:9090
    webhookSecretFile: /etc/groundswell/webhook.secret  # signs questions, HMAC-SHA256
    webhooks: [ci.example]  # hosts that webhook gates may name; none is any
  balancers:           # addresses of HAProxy's runtime APIs, level admin, that groups
    edge: [10.0.0.5:9999, 10.0.0.6:9999]  # name in traffic:
  ec2:                 # instances that join without a token; unproven: see docs/agent.md
    accounts: ["123456789012"]
    certificates: /etc/groundswell/aws.pem  # AWS's, RSA-2048, one of each region
  history:             # where deployments are moved to that have ended, 64 at once or
    store: s3://releases/history  # all once one is so old; without, the oldest are dropped
    after: 24h
  certificateLife: 720h # of every certificate; renewed at two thirds of it
  deadAfter: 72h        # a voter that is silent for so long is removed, if all
                        # others answer and three of them stay
  diskReserve: 64MiB    # set aside, so that a full disk ends no coordinator`,
		Example: `  dcoord --bootstrap --name c1 --dir /var/lib/groundswell/coordinator --advertise 10.0.0.11
  dcoord --name c2 --advertise 10.0.0.12 --join 10.0.0.11:7100 --join-token-file token
  dcoord --config /etc/groundswell/coordinator.yaml`,
		SilenceErrors: true, SilenceUsage: true, Version: coordinator.Version(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage{fmt.Errorf("unexpected argument %q; see `dcoord --help`", args[0])}
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	cmd.AddCommand(operatorCommand(stdout), recoverCommand(stdout), restoreCommand(stdout))
	cmd.CompletionOptions.DisableDefaultCmd = true
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file (YAML); flags lie over it")
	f.BoolVar(&bootstrap, "bootstrap", false, "start a new cluster in an empty folder")
	f.StringVar(&given.Name, "name", "",
		"name of this coordinator, stable and unique in the cluster (default the host's)")
	f.StringVar(&given.Dir, "dir", "", "folder of everything durable")
	f.StringVar(&given.API, "api", "", "address for people and programs (default :7100)")
	f.StringVar(&given.Agents, "agents", "", "address for agents (default :7101)")
	f.StringVar(&given.Raft, "raft", "", "address for the other coordinators (default :7102)")
	f.StringVar(&given.Gossip, "gossip", "", "address of gossip, TCP and UDP (default :7103)")
	f.StringVar(&given.Debug, "debug", "", "loopback address of metrics and profiles, or none (default 127.0.0.1:7190)")
	f.StringVar(&given.Advertise, "advertise", "", "host that others reach this coordinator by")
	f.StringSliceVar(&given.Join, "join", nil, "API address of a coordinator of the cluster to join")
	f.StringVar(&given.TokenFile, "join-token-file", "",
		"file with the join token, - for standard input; else GROUNDSWELL_JOIN_TOKEN")
	f.StringVar(&given.LogLevel, "log-level", "", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(file, cmd.Flags())
		if err != nil {
			return usage{err}
		}
		return serve(cmd.Context(), s, bootstrap, stdout, stderr)
	}
	return cmd
}

// load layers flags over environment over file over defaults.
func load(file string, flags *pflag.FlagSet) (settings, error) {
	s := defaults()
	if file != "" {
		if err := config.Load(file, &s); err != nil {
			return s, err
		}
	}
	given := map[string]string{}
	keys := map[string]string{"join-token-file": "joinTokenFile", "log-level": "logLevel"}
	flags.Visit(func(f *pflag.Flag) {
		key := f.Name
		if k, ok := keys[key]; ok {
			key = k
		}
		text := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			text = ""
			for i, v := range list.GetSlice() {
				if i > 0 {
					text += ","
				}
				text += v
			}
		}
		given[key] = text
	})
	err := config.Overlay(&s, config.Env("DCOORD", os.LookupEnv), config.Layer{
		Name:   func(key string) string { return key },
		Lookup: func(name string) (string, bool) { v, ok := given[name]; return v, ok },
	})
	if s.Debug == "none" {
		s.Debug = ""
	}
	return s, err
}

func serve(ctx context.Context, s settings, bootstrap bool, stdout, stderr io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return usage{err}
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})).With("coordinator", s.Name)
	o := coordinator.Options{
		Name: s.Name, Dir: s.Dir, API: s.API, Agents: s.Agents, Raft: s.Raft, Gossip: s.Gossip, Debug: s.Debug,
		Advertise: s.Advertise, Bootstrap: bootstrap, Join: s.Join, Log: log, Store: stores.Open,
		Approvers:       s.Approvers,
		CertificateLife: time.Duration(s.CertificateLife), DeadAfter: time.Duration(s.DeadAfter),
		DiskReserve: int64(s.DiskReserve), HistoryStore: s.History.Store, HistoryAfter: time.Duration(s.History.After),
		Token: func() (identity.Token, error) { return identity.ReadToken(s.TokenFile) },
		Ready: func(a coordinator.Addresses) {
			if err := json.NewEncoder(stdout).Encode(map[string]any{"event": "ready", "addresses": a}); err != nil {
				log.Warn("cannot write to standard output", "error", err)
			}
		},
	}
	o.Gates.Prometheus, o.Gates.SecretFile, o.Gates.Webhooks = s.Gates.Prometheus, s.Gates.WebhookSecretFile,
		s.Gates.Webhooks
	o.HAProxy = s.Balancers
	o.EC2 = ec2.Options{
		Accounts: s.EC2.Accounts, Regions: s.EC2.Regions, Instances: s.EC2.Instances,
		Certificates: s.EC2.Certificates, Within: time.Duration(s.EC2.Within), Tags: s.EC2.Tags,
		Endpoint: os.Getenv("AWS_ENDPOINT_URL_EC2"),
	}
	if err := o.Validate(); err != nil {
		return usage{err}
	}
	return coordinator.Run(ctx, o)
}
