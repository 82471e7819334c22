package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Args are the key=value arguments of one command of a scenario.
type Args map[string]string

// app is the application of every scenario. The hash that chooses canaries puts
// its hosts h1 to h7 in this order and before h8 to h12.
const app = "lozlice"

// Session runs the commands of a scenario on one world and returns the trace
// of each.
type Session struct {
	World *World
	trace strings.Builder
	// Reports includes TargetsReported and GateObserved facts in the trace.
	Reports bool

	answers map[string]deploy.Verdict // of gates, by name and by name and key
}

// NewSession returns a session on a new world without random faults, by the newest rules.
func NewSession(seed uint64) *Session {
	s := &Session{World: New(seed, Faults{}), answers: map[string]deploy.Verdict{}}
	s.World.Deep, s.World.State.Rules = true, deploy.RulesKnown
	s.World.Gate = s.answer
	s.World.Quiet = func(e deploy.Event) bool {
		_, observed := e.(deploy.GateObserved)
		return observed && !s.Reports
	}
	s.World.Trace = func(at deploy.Time, line string) {
		if !s.Reports && (strings.HasPrefix(line, "TargetsReported") || strings.HasPrefix(line, "HostEnrolled")) {
			return
		}
		d := time.Duration(at).Truncate(time.Second)
		fmt.Fprintf(&s.trace, "%02d:%02d %s\n", int(d.Minutes()), int(d.Seconds())%60, line)
	}
	return s
}

// Do runs one command and returns what it printed.
//
//	hosts n=6 zones=a,b,c          enrol hosts h1..h6, zones in turn; shards=1,2 as well
//	join host=h7 zone=a            a new host; leave host=h7 ends it gracefully
//	group min=66% concurrent=1 ... with one wave a line: "rest:remainder,bake=1m"
//	deploy rev=v1 id=d1            create a deployment; fixes=, skip=, keep=, pre=, preempt, redeploy, inflight=, queue=,
//	                               emergency, reason=;
//	                               undo=v2 rolls the group back from v2 to rev, undo=none to rev
//	script host=h1 rev=v2 how=fail
//	gate name=errors answer=fail   what a gate answers from now on (pass, fail, inconclusive, few samples), key= for one zone or host
//	sight host=h1 up=false
//	change host=h1 rev=v1          by hand, behind the coordinators' back
//	install host=h1 rev=v0         the same, and it has not been reported yet
//	swap host=h1 rev=v0 for=1m     away, and back with that on a disk that holds nothing else
//	select hosts=half              the group's selector: half, false or true
//	cordon host=h1                 release host=h1 ends it; drain host=h1 takes it out of its pools, undo ends it
//	freeze [for=1h]                unfreeze ends it
//	prune rev=v1,v2                forget revisions that nothing needs
//	act id=d1 verb=pause           zone=, wave=, gate=, actor=, hosts=, fixes=, by=, reason=
//	leader                         a new one, which has seen no stream go
//	reload                         every coordinator restarts from a snapshot
//	run [for=1h] [until=d1:paused] until the deployment in flight ends or halts, or until=d1/rest:baking, d1/h1:granted
//	status                         deployments, waves, what every host runs
func (s *Session) Do(cmd string, args Args) string {
	s.trace.Reset()
	if err := s.run(cmd, args); err != nil {
		fmt.Fprintf(&s.trace, "error: %s\n", err)
	}
	if err := s.World.Err(); err != nil {
		fmt.Fprintf(&s.trace, "INVARIANT BROKEN: %s\n", err)
	}
	return s.trace.String()
}

func (s *Session) run(cmd string, args Args) error {
	switch cmd {
	case "hosts":
		return s.hosts(args)
	case "group":
		c, err := ParseConfig(args)
		if err != nil {
			return err
		}
		s.World.Define(app, "prod", c)
		return s.World.Run(time.Second, nil)
	case "deploy":
		return s.deploy(args)
	case "act":
		return s.World.Ask(deploy.RequestMade{
			Request:    deploy.Request{Actor: args["actor"], Reason: args["reason"]},
			Deployment: args["id"], Verb: deploy.Verb(args["verb"]),
			Zone: args["zone"],
			Wave: args["wave"], Gate: args["gate"], Hosts: args.list("hosts"), Fixes: deploy.Digest(args["fixes"]),
			By: args["by"],
		})
	case "run":
		return s.runFor(args)
	case "status":
		s.status()
		return nil
	}
	return s.disturb(cmd, args)
}

// disturb is what happens to the fleet and to its coordinators.
func (s *Session) disturb(cmd string, args Args) error {
	host := args["host"]
	switch cmd {
	case "join":
		s.World.AddHost(host, args["zone"], nil)
		return nil
	case "leave":
		return s.World.Leave(host)
	case "script":
		return s.World.Script(host, deploy.Digest(args["rev"]), args["how"])
	case "gate":
		s.answers[args["name"]+"/"+args["key"]] = deploy.Verdict(args["answer"])
		return nil
	case "sight":
		s.World.Sight(host, args["up"] == "true")
		return nil
	case "swap":
		away, err := time.ParseDuration(args["for"])
		if err != nil {
			return err
		}
		s.World.Swap(host, deploy.Digest(args["rev"]), away)
		return nil
	case "select":
		s.World.Select(app, "prod", args["hosts"])
		return nil
	case "install":
		return s.World.Install(host, deploy.Digest(args["rev"]))
	case "change":
		return s.World.Change(host, deploy.Digest(args["rev"]))
	case "cordon":
		return s.World.Propose(deploy.HostsQuarantined{Request: s.request(), Hosts: []string{host}})[0]
	case "release":
		return s.World.Propose(deploy.HostsReleased{Request: s.request(), Hosts: []string{host}})[0]
	case "drain":
		_, undo := args["undo"]
		return s.World.Propose(deploy.HostDrainSet{Request: s.request(), Host: host, Undo: undo})[0]
	case "freeze":
		var d time.Duration
		if args["for"] != "" {
			var err error
			if d, err = time.ParseDuration(args["for"]); err != nil {
				return err
			}
		}
		return s.World.Propose(deploy.FreezeSet{Request: s.request(), For: d})[0]
	case "prune":
		var digests []deploy.Digest
		for _, rev := range args.list("rev") {
			digests = append(digests, deploy.Digest(rev))
		}
		return s.World.Propose(deploy.RevisionsPruned{Request: s.request(), App: app, Digests: digests})[0]
	case "unfreeze":
		return s.World.Propose(deploy.FreezeLifted{Request: s.request()})[0]
	case "leader":
		s.World.NewLeader()
		return nil
	case "reload":
		return s.World.Reload()
	}
	return fmt.Errorf("unknown command %q", cmd)
}

// request is one more request of an operator.
func (s *Session) request() deploy.Request {
	return deploy.Request{ID: fmt.Sprint("ann-", s.World.Entries), Actor: "ann"}
}

// answer is what a gate says: what was told for the key, else for the gate,
// else a pass.
func (s *Session) answer(q deploy.Question) deploy.Observation {
	v, ok := s.answers[q.Gate.Name+"/"+q.Key]
	if !ok {
		v, ok = s.answers[q.Gate.Name+"/"]
	}
	if !ok || v == "" {
		v = deploy.VerdictPass
	}
	if v == "few" {
		return deploy.Observation{Answer: deploy.VerdictInconclusive, Few: true, Samples: 1}
	}
	return deploy.Observation{Answer: v, Final: q.Gate.Compare != nil && v != deploy.VerdictInconclusive, Samples: 100}
}

func (a Args) list(key string) []string {
	if a[key] == "" {
		return nil
	}
	return strings.Split(a[key], ",")
}

func (s *Session) deploy(args Args) error {
	if undo := args["undo"]; undo != "" {
		return s.World.Rollback(app, "prod", args["id"], args["rev"], undo)
	}
	return s.World.Deploy(app, "prod", args["id"], args["rev"], func(e *deploy.DeploymentCreated) {
		for _, rev := range args.list("fixes") {
			e.Fixes = append(e.Fixes, deploy.Digest(rev))
		}
		for _, h := range args.list("skip") {
			e.Skip = append(e.Skip, deploy.Skip{Host: h, Cause: "offline"})
		}
		for _, h := range args.list("keep") {
			e.Skip = append(e.Skip, deploy.Skip{Host: h, Cause: "left out", Intend: true})
		}
		if pre := args.list("pre"); pre != nil {
			e.Config.PreGates = pre
		}
		e.Preempt, e.Redeploy, e.Force = args["preempt"] != "", args["redeploy"] != "", args["force"] != ""
		e.Emergency, e.Request.Reason = args["emergency"] != "", args["reason"]
		if v := args["queue"]; v != "" {
			e.Config.InFlight.Queue = v
		}
		e.Config.InFlight.Serial = args["inflight"] == "serial"
	})
}

func (s *Session) hosts(args Args) error {
	n, err := strconv.Atoi(args["n"])
	if err != nil {
		return fmt.Errorf("n: %w", err)
	}
	zones := strings.Split(args["zones"], ",")
	for i := range n {
		labels := map[string]string{}
		if args["canary"] == fmt.Sprintf("h%d", i+1) {
			labels["canary"] = "yes"
		}
		if shards := args.list("shards"); len(shards) > 0 { // every host in one, in turn
			labels["shard"] = shards[i%len(shards)]
		}
		s.World.AddHost(fmt.Sprintf("h%d", i+1), zones[i%len(zones)], labels)
	}
	return nil
}

func (s *Session) runFor(args Args) error {
	limit, stop := 24*time.Hour, s.halted
	if args["for"] != "" {
		d, err := time.ParseDuration(args["for"])
		if err != nil {
			return err
		}
		limit, stop = d, nil
	}
	if until := args["until"]; until != "" {
		stop = func() bool { return s.reached(until) }
	}
	if err := s.World.Run(limit, stop); err != nil {
		return err
	}
	if until := args["until"]; until != "" && !s.reached(until) {
		return fmt.Errorf("%s did not come", until)
	}
	return nil
}

// halted reports whether the newest deployment in flight, if any is, waits for
// a person.
func (s *Session) halted() bool {
	d := s.World.State.Newest(app, "prod")
	return d == nil || d.Decision
}

// reached reports whether a deployment, wave or task has a status, written as
// d1:paused, d1/rest:baking, d1/h1:granted.
func (s *Session) reached(until string) bool {
	what, status, _ := strings.Cut(until, ":")
	id, part, _ := strings.Cut(what, "/")
	d := s.World.State.Deployments[id]
	switch {
	case d == nil:
		return false
	case part == "":
		return d.Status.String() == status
	case d.Tasks[part] != nil:
		return d.Tasks[part].Status.String() == status
	}
	return slices.ContainsFunc(d.Waves, func(w deploy.Wave) bool {
		return w.Name == part &&
			w.Status.String() == status
	})
}

func (s *Session) status() {
	st := s.World.State
	for _, id := range sortedByseq(st) {
		d := st.Deployments[id]
		fmt.Fprintf(&s.trace, "%s %s %s", d.ID, d.RevName, d.Status)
		if d.Cause != "" {
			fmt.Fprintf(&s.trace, " (%s)", d.Cause)
		}
		fmt.Fprintln(&s.trace)
		for i := range d.Waves {
			p := d.Progress(i)
			fmt.Fprintf(&s.trace, "  %s %s %d/%d", d.Waves[i].Name, d.Waves[i].Status, p.Settled, p.Total)
			if p.Failed > 0 {
				fmt.Fprintf(&s.trace, " failed=%d", p.Failed)
			}
			fmt.Fprintln(&s.trace)
		}
		for _, hold := range deploy.Holds(st, d, s.World.Now) {
			fmt.Fprintf(&s.trace, "  hold: %s\n", hold)
		}
	}
	running := s.World.Running()
	var revs []string
	for r, n := range running {
		revs = append(revs, fmt.Sprintf("%s:%d", orNothing(r), n))
	}
	slices.Sort(revs)
	fmt.Fprintf(&s.trace, "hosts run %s, %d serve\n", strings.Join(revs, " "), s.World.Serving())
}

func orNothing(d deploy.Digest) string {
	if d == "" {
		return "nothing"
	}
	return string(d)
}

func sortedByseq(s *deploy.State) []string {
	var ids []string
	for id := range s.Deployments {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return int(s.Deployments[a].Seq) - int(s.Deployments[b].Seq) })
	return ids
}
