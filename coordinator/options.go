// Package coordinator composes one coordinator: raft, state, scheduler,
// sessions, control, enrolment and gossip, behind mutual TLS.
package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/ec2"
	"github.com/groundswell/groundswell/coordinator/gates"
	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

// Options of New.
type Options struct {
	Name string // of this coordinator, unique in the cluster and stable
	Dir  string // everything durable lies below it

	API    string // host:port for people and programs
	Agents string // host:port for agents
	Raft   string // host:port for the other coordinators
	Gossip string // host:port, TCP and UDP
	Debug  string // host:port of metrics and profiles, loopback only; "" is off

	// Advertise is the host that others reach this coordinator by; it replaces
	// the host of the four addresses. Needed when they listen on all interfaces.
	Advertise string

	// Bootstrap starts a new cluster in an empty folder.
	Bootstrap bool
	// Join are API addresses of coordinators of the cluster to join, in an
	// empty folder, with a token of role coordinator.
	Join  []string
	Token func() (identity.Token, error)

	// Store opens the artifact store of an application.
	Store func(ctx context.Context, url string) (artifacts.Store, error)

	// Rules is the highest level of rules of the log that this coordinator
	// announces; 0 is all that its build knows.
	Rules int

	// Gates says whom the leader asks the gates of deployments; every coordinator
	// of a cluster has the same.
	Gates gates.Options

	// Approvers lists the operators of each team that approval gates name, until the
	// access document does: it is imported once, and refused from then on.
	Approvers map[string][]string

	// HAProxy lists the addresses of runtime APIs, by the name that groups know the
	// balancers by; every coordinator of a cluster has the same.
	HAProxy map[string][]string

	// EC2 says which instances may join by their identity documents; every
	// coordinator of a cluster has the same.
	EC2 ec2.Options

	// HistoryStore is the artifact store that deployments are moved to which have ended,
	// HistoryAfter how long after that at the latest; 0 is a day. Every coordinator of a
	// cluster has the same store. "" moves nothing.
	HistoryStore string
	HistoryAfter time.Duration

	// CertificateLife is how long the certificates live that this coordinator
	// issues, its own too; 0 is identity.DefaultLife.
	CertificateLife time.Duration

	// DeadAfter is how long a voter may be silent before the leader removes it, if
	// all others answer and three stay; 0 is DefaultDeadAfter, negative never.
	DeadAfter time.Duration

	// DiskReserve is how many bytes are set aside for a full disk; 0 is none. See
	// consensus.Options.
	DiskReserve int64

	// RefusedEvery is how often requests that were refused are recorded in the audit, at
	// most, of each who makes them and each verb; 0 is DefaultRefusedEvery.
	RefusedEvery time.Duration

	// Heartbeat is how long a leader may be silent; 0 is 500 ms.
	Heartbeat time.Duration

	// Listen and Dial replace TCP, for tests in memory; nil is TCP.
	Listen func(address string) (net.Listener, error)
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	// Ring replaces gossip's sockets in the same way.
	Ring *gossip.Network

	epoch  uint64 // that this start begins, 0 for none
	reason string
	tamper func(*state.Store) // of tests: with what this replica applies

	historyLook time.Duration // of tests: how often it is looked whether anything is to be moved

	Log *slog.Logger
	// Ready is called once the coordinator serves, with its addresses.
	Ready func(Addresses)
}

// Addresses are where others reach a coordinator.
type Addresses struct {
	Name   string `json:"name"`
	API    string `json:"api"`
	Agents string `json:"agents"`
	Raft   string `json:"raft"`
	Gossip string `json:"gossip"`
	// Operator is the folder of the operator's credential, at bootstrap.
	Operator string `json:"operator,omitempty"`
}

// leastReserve holds a snapshot of a fleet of 1,000 hosts, some 2 MB, and what is
// written beside it.
const leastReserve = 8 << 20

// Validate reports what is wrong with the options, naming the flag.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := identity.CheckID(o.Name); err != nil {
		bad("--name: %w", err)
	}
	if o.CertificateLife != 0 && o.CertificateLife < identity.ShortestLife {
		bad("certificateLife: %s is too short to be renewed in time; use at least %s",
			o.CertificateLife, identity.ShortestLife)
	}
	if o.HistoryAfter < 0 || o.HistoryAfter > 0 && o.HistoryStore == "" {
		bad("history.after: %s is a time after which deployments are moved, to history.store", o.HistoryAfter)
	}
	if o.DiskReserve < 0 || o.DiskReserve > 0 && o.DiskReserve < leastReserve {
		bad("diskReserve: %d bytes hold no snapshot; use at least %d, or 0 for none", o.DiskReserve, leastReserve)
	}
	if o.Dir == "" {
		bad("--dir: a coordinator needs a folder for its state")
	}
	for flag, addr := range map[string]string{"api": o.API, "agents": o.Agents, "raft": o.Raft, "gossip": o.Gossip} {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			bad("--%s %q: %w; write host:port", flag, addr, err)
			continue
		}
		if ip := net.ParseIP(host); (host == "" || ip != nil && ip.IsUnspecified()) && o.Advertise == "" {
			bad("--%s %q listens on all interfaces: say with --advertise how others reach this host", flag, addr)
		}
	}
	if o.Debug != "" {
		if host, _, err := net.SplitHostPort(o.Debug); err != nil || !net.ParseIP(host).IsLoopback() {
			bad("--debug %q: metrics and profiles are not protected, so they are served on a loopback address only",
				o.Debug)
		}
	}
	if o.Bootstrap && len(o.Join) > 0 {
		bad("--bootstrap and --join exclude each other: a cluster is bootstrapped once, others join it")
	}
	if _, err := access.Parse(access.OfApprovers(o.Approvers), "approvers"); len(o.Approvers) > 0 && err != nil {
		bad("approvers: no team of access.yaml can be made of them: %w", err)
	}
	if _, err := gates.New(o.Gates); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, o.EC2.Validate())
	for name, addresses := range o.HAProxy {
		if _, err := haproxy.New(name, addresses); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (o *Options) heartbeat() time.Duration { return cmp.Or(o.Heartbeat, consensus.Heartbeat) }

func (o *Options) rules() int { return cmp.Or(o.Rules, deploy.RulesKnown) }

// advertised returns how others reach a listener.
func (o *Options) advertised(l net.Addr) string {
	host, port, err := net.SplitHostPort(l.String())
	if err != nil {
		return l.String()
	}
	if o.Advertise != "" {
		host = o.Advertise
	}
	return net.JoinHostPort(host, port)
}

func (o *Options) listen(address string) (net.Listener, error) {
	if o.Listen != nil {
		return o.Listen(address)
	}
	return net.Listen("tcp", address)
}

func (o *Options) dial(ctx context.Context, address string) (net.Conn, error) {
	if o.Dial != nil {
		return o.Dial(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// dialer is what a gRPC connection needs to go the same way.
func (o *Options) dialer() []grpc.DialOption {
	if o.Dial == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(o.Dial)}
}

// checkFiles refuses to start with so few files that nobody could connect, and warns
// where a large fleet could not.
func (o *Options) checkFiles() error {
	files, err := rpc.OpenFiles()
	if err != nil {
		return err
	}
	const how = "raise the limit (`ulimit -n 65536`, or LimitNOFILE=65536 in the unit of systemd)"
	if files < rpc.FewestFiles {
		return fmt.Errorf("this process may open %d files, a coordinator needs %d at least: %s", files,
			rpc.FewestFiles, how)
	}
	if files < plentyFiles {
		o.Log.Warn("few files may be opened: "+how, "files", files, "hosts", rpc.RoomIn(files).Known)
	}
	return nil
}

// plentyFiles hold the sessions of half of 30,000 hosts.
const plentyFiles = 20_000
