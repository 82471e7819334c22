package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/devfleet"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Options of Run.
type Options struct {
	Dir, Bin     string // an existing folder, removed at the end; of dcoord
	Worker       []string
	Hosts        int
	Coordinators int
	Deployments  int // at least; each goes to HostsEach hosts
	HostsEach    int
	Waves        int
	Duration     time.Duration // deploy on until it has passed; 0 is until there were so many
	KillLeader   int           // times
	Reconnect    bool          // cut every session at once
	Joins        bool          // tell how fast the fleet grew at each size
	AtOnce       int           // hosts that join at the same time
	Idle         time.Duration // how long a fleet without work is looked at
	Profiles     bool          // say where coordinators serve profiles
	Keep         bool
	Say          func(format string, args ...any)
}

// run is one measurement. Its steps run after each other.
type run struct {
	o       Options
	shape   Shape
	fleet   *devfleet.Fleet
	crew    *crew
	conn    *grpc.ClientConn
	control controlv1.ControlServiceClient
	out     *Figures
	term    uint64
	kills   int

	submitted atomic.Int64
	mu        sync.Mutex
	ended     map[string]ended // deployments by id
	digests   map[int]string   // application to what was deployed to it last
}

// ended is one deployment.
type ended struct {
	app    int
	submit time.Time
	status string
}

// Run starts a cluster and hosts, measures, and ends them. With an error it returns what
// was measured before.
func Run(ctx context.Context, o Options) (out *Figures, err error) {
	r := &run{
		o: o, shape: Shape{Hosts: o.Hosts, HostsEach: cmp.Or(o.HostsEach, o.Hosts), Waves: o.Waves},
		ended: map[string]ended{}, digests: map[int]string{},
	}
	r.out = &Figures{
		Hosts: o.Hosts, Coordinators: o.Coordinators, HostsEach: r.shape.HostsEach, Waves: o.Waves,
		Troubles: map[string]int{},
	}
	r.fleet, err = devfleet.Start(ctx, devfleet.Options{
		Dir: o.Dir, Bin: o.Bin, Coordinators: o.Coordinators, Keep: o.Keep, Profiles: o.Profiles, Zones: 1,
	}, o.Say)
	defer func() { err = errors.Join(err, r.fleet.Stop()) }()
	if err != nil {
		return nil, err
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	defer func() { _ = r.conn.Close() }()
	if o.Profiles {
		for _, c := range r.fleet.Coordinators() {
			o.Say("profiles of %s: http://%s/debug/pprof/", c.Name, c.Debug)
		}
	}
	defer func() {
		if r.crew != nil {
			r.crew.stop()
		}
	}()
	for _, step := range []func(context.Context) error{
		r.begin, r.join, r.idle, r.deploy, r.killLeaders, r.cutAll, r.finish,
	} {
		if err := step(ctx); err != nil {
			return r.out, err
		}
	}
	return r.out, nil
}

// largest is the longest answer that is read: all tasks of 30,000 hosts.
const largest = 64 << 20

func (r *run) connect() (err error) {
	cred, err := identity.Load(r.fleet.Credentials())
	if err != nil {
		return err
	}
	r.conn, err = rpc.Dial(r.fleet.Addresses(), cred.Client(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)))
	if err != nil {
		return err
	}
	r.control = controlv1.NewControlServiceClient(r.conn)
	return nil
}

// begin defines the applications, notes how coordinators are without hosts, and
// starts the hosts' processes.
func (r *run) begin(ctx context.Context) error {
	r.o.Say("defining %d applications", r.shape.Apps())
	for app := range r.shape.Apps() {
		_, err := r.control.ApplyApp(ctx, &controlv1.ApplyAppRequest{
			Mutation: mutation(), Source: []byte(r.shape.YAML(app)), Filename: "deploy.yaml",
		})
		if err != nil {
			return fmt.Errorf("define %s: %s", appName(app), rpc.Text(err))
		}
	}
	status, err := r.control.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
	if err != nil {
		return fmt.Errorf("ask for the term: %s", rpc.Text(err))
	}
	r.term = status.Term
	token, err := r.fleet.Token(ctx, "agent", r.o.Hosts)
	if err != nil {
		return err
	}
	var agents []string
	for _, c := range r.fleet.Coordinators() {
		agents = append(agents, c.Agents)
	}
	r.crew, err = startCrew(r.fleet, r.o.Worker, WorkerOptions{
		Coordinators: agents, Token: token, Shape: r.shape,
	}, r.o.Hosts, r.o.AtOnce)
	return err
}

func mutation() *controlv1.Mutation {
	return &controlv1.Mutation{RequestId: ulid.Make().String(), Reason: "bench"}
}

// joinLimit bounds joining: 50 a second.
func (r *run) joinLimit() time.Duration {
	return time.Minute + time.Duration(r.o.Hosts)*20*time.Millisecond
}

// sample is how many hosts had joined at a moment.
type sample struct {
	at     time.Duration
	joined int64
}

func (r *run) join(ctx context.Context) error {
	rss, _ := r.fleet.RSS()
	before, began, cpu := sum(rss), time.Now(), r.fleet.CPU()
	r.o.Say("%d hosts join, %d at once", r.o.Hosts, r.o.AtOnce)
	if _, err := r.crew.tell("join"); err != nil {
		return err
	}
	var curve []sample
	err := r.crew.until(ctx, r.joinLimit(), "every host to have its application", func(n Counts) bool {
		curve = append(curve, sample{time.Since(began), n.Joined})
		return n.Targets >= int64(r.o.Hosts)
	})
	if err != nil {
		return err
	}
	r.out.JoinWall, r.out.JoinCPU = seconds(time.Since(began)), seconds(r.fleet.CPU()-cpu)
	rss, _ = r.fleet.RSS()
	bytes := (sum(rss) - before) / int64(r.o.Hosts)
	r.out.SessionBytes = &bytes
	if r.o.Joins {
		r.out.Joins = rates(curve, r.o.Hosts)
	}
	return nil
}

// sizes are those at which the growth is told.
var sizes = []int{100, 300, 1000, 2000, 3500, 5000, 10000, 15000, 20000, 25000, 30000}

// rates says how fast the fleet grew by the last tenth up to each size.
func rates(curve []sample, hosts int) (out []JoinRate) {
	when := func(n float64) float64 { // between two samples as if the hosts came evenly
		for i, s := range curve {
			if float64(s.joined) >= n {
				if i == 0 {
					return s.at.Seconds()
				}
				p := curve[i-1]
				return p.at.Seconds() + (s.at-p.at).Seconds()*(n-float64(p.joined))/float64(s.joined-p.joined)
			}
		}
		return 0
	}
	for _, n := range append(slices.Clone(sizes), hosts) {
		if n > hosts || n < 100 || len(out) > 0 && out[len(out)-1].At == n {
			continue
		}
		if took := when(float64(n)) - when(0.9*float64(n)); took > 0 {
			out = append(out, JoinRate{At: n, Rate: 0.1 * float64(n) / took})
		}
	}
	return out
}

func sum(all []int64) (n int64) {
	for _, x := range all {
		n += x
	}
	return n
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

func (r *run) idle(ctx context.Context) error {
	if r.o.Idle == 0 {
		return nil
	}
	r.o.Say("nothing happens for %s", r.o.Idle)
	cpu := r.fleet.CPU()
	select {
	case <-time.After(r.o.Idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	percent := 100 * (r.fleet.CPU() - cpu).Seconds() / r.o.Idle.Seconds()
	r.out.IdleCPU = &percent
	return nil
}

// finish waits until every host has a session and runs what it was given, and sums
// up.
func (r *run) finish(ctx context.Context) error {
	all := int64(r.o.Hosts)
	err := r.crew.until(ctx, time.Minute, "every session", func(n Counts) bool { return n.Up >= all })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	n, tellErr := r.crew.tell("log")
	if tellErr != nil {
		return tellErr
	}
	if err != nil {
		r.o.Say("%v", err)
	}
	for text, k := range n.Troubles {
		r.out.Troubles[text] += k
	}
	if r.out.Stuck, err = r.stuck(ctx); err != nil {
		return err
	}
	status, err := r.control.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
	if err != nil {
		return fmt.Errorf("ask for the term: %s", rpc.Text(err))
	}
	r.out.Elections = int(status.Term-r.term) - r.kills
	rss, _ := r.fleet.RSS()
	for i, c := range r.fleet.Coordinators() {
		r.out.CoordinatorMB = append(r.out.CoordinatorMB, float64(rss[i])/1e6)
		r.out.DiskMB = append(r.out.DiskMB, float64(size(filepath.Join(r.fleet.Dir(), c.Name)))/1e6)
	}
	return nil
}

// size is what the files below a folder hold.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a file may be gone meanwhile
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// stuck counts the hosts that the cluster does not know as running what was
// deployed to them last, with a session.
func (r *run) stuck(ctx context.Context) (int, error) {
	good := 0
	page := &controlv1.ListHostsRequest{PageSize: 1000}
	for {
		out, err := r.control.ListHosts(ctx, page)
		if err != nil {
			return 0, fmt.Errorf("list hosts: %s", rpc.Text(err))
		}
		for _, h := range out.Hosts {
			if r.runs(h) {
				good++
			}
		}
		if page.Page = out.NextPage; page.Page == "" {
			return r.o.Hosts - good, nil
		}
	}
}

// runs reports whether a host has a session and runs what was deployed to it last.
func (r *run) runs(h *controlv1.Host) bool {
	var i int
	if _, err := fmt.Sscanf(h.Name, "bench-%d", &i); err != nil || h.State == "unreachable" || len(h.Targets) != 1 {
		return false
	}
	want := r.digests[i/r.shape.HostsEach]
	t := h.Targets[0]
	return want == "" || t.RunningDigest == want && t.Health == "healthy"
}
