package attack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// flood repeats one request until ctx ends, and returns how often it was made.
type flood struct {
	name string
	run  func(ctx context.Context, w *hostile) int
}

// hostile is who floods: a host with a credential, and nobody.
type hostile struct {
	t      *testing.T
	name   string
	me     stolen
	at     string // its coordinator's port for agents, a follower's
	secret string // of a token that is open, but for its last characters
	n      uint64 // counter of reports
}

// stream keeps sending what next makes, in a session.
func (w *hostile) stream(ctx context.Context, next func(i int) *agentv1.Up) int {
	n := 0
	client := agentv1.NewAgentServiceClient(dial(w.t, w.at, w.me))
	for ctx.Err() == nil {
		s, err := client.Session(ctx)
		if err == nil {
			err = hello(s, &agentv1.Hello{Name: w.name, Zone: "a", Labels: map[string]string{"role": "evil"}})
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() { // who does not read stops at once
			for _, err := s.Recv(); err == nil; _, err = s.Recv() {
			}
		}()
		for err == nil {
			err = s.Send(next(n))
			n++
		}
	}
	return n
}

func reports(app func(i int) string) func(context.Context, *hostile) int {
	return func(ctx context.Context, w *hostile) int {
		return w.stream(ctx, func(i int) *agentv1.Up {
			m := &agentv1.Reports{}
			for range 20 {
				w.n++
				m.Items = append(m.Items, &agentv1.Report{
					App: app(i), Counter: w.n, Running: fmt.Sprint(w.n), Health: agentv1.Health_HEALTH_HEALTHY,
					Evidence: strings.Repeat("x", 512), Failure: &agentv1.Failure{Tail: strings.Repeat("y", 2048)},
				})
			}
			return &agentv1.Up{Message: &agentv1.Up_Reports{Reports: m}}
		})
	}
}

var floods = []flood{
	{"reports about applications of others", reports(func(i int) string { return fmt.Sprint("www-", i%50) })},
	{"reports about its own application", reports(func(int) string { return "evil" })},
	{"generations that nobody granted", func(ctx context.Context, w *hostile) int {
		return w.stream(ctx, func(i int) *agentv1.Up {
			w.n++
			return &agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: []*agentv1.Report{{
				App: "evil", Counter: w.n, Generation: uint64(i) << 50,
			}}}}}
		})
	}},
	{"progress", func(ctx context.Context, w *hostile) int {
		return w.stream(ctx, func(i int) *agentv1.Up {
			return &agentv1.Up{Message: &agentv1.Up_Progress{Progress: &agentv1.Progress{
				App: "evil", Event: strings.Repeat("e", 5000), Generation: uint64(i),
			}}}
		})
	}},
	{"output that nobody asked for", func(ctx context.Context, w *hostile) int {
		return w.stream(ctx, func(int) *agentv1.Up {
			return &agentv1.Up{Message: &agentv1.Up_Log{Log: &agentv1.LogChunk{Id: "c1-1", Data: make([]byte, 60<<10)}}}
		})
	}},
	{"new labels", func(ctx context.Context, w *hostile) int {
		n := 0
		client := agentv1.NewAgentServiceClient(dial(w.t, w.at, w.me))
		for ; ctx.Err() == nil; n++ {
			s, err := client.Session(ctx)
			if err == nil {
				_ = hello(s, &agentv1.Hello{Name: w.name, Labels: map[string]string{
					"role": "evil", "n": strings.Repeat("l", 1000) + fmt.Sprint(n),
				}})
				_ = s.CloseSend()
			}
		}
		return n
	}},
	{"new processes of its agent", func(ctx context.Context, w *hostile) int {
		n := 0
		client := agentv1.NewAgentServiceClient(dial(w.t, w.at, w.me))
		for ; ctx.Err() == nil; n++ {
			s, err := client.Session(ctx)
			if err == nil {
				_ = hello(s, &agentv1.Hello{
					Name: w.name, Zone: "a", Labels: map[string]string{"role": "evil"}, Instance: fmt.Sprint("i", n),
				})
				_ = s.CloseSend()
			}
		}
		return n
	}},
	{"signed URLs", func(ctx context.Context, w *hostile) int {
		client := agentv1.NewAgentServiceClient(dial(w.t, w.at, w.me))
		return many(ctx, func() {
			_, _ = client.SignArtifact(ctx, &agentv1.SignArtifactRequest{App: "evil", Group: "prod", Key: "k"})
		})
	}},
	{"renewals", func(ctx context.Context, w *hostile) int {
		client := agentv1.NewAgentServiceClient(dial(w.t, w.at, w.me))
		return many(ctx, func() { _, _ = client.Renew(ctx, &agentv1.RenewRequest{CsrDer: make([]byte, 1000)}) })
	}},
	{"a known token with wrong secrets", func(ctx context.Context, w *hostile) int {
		client := agentv1.NewEnrolmentServiceClient(dial(w.t, w.at, stolen{}))
		_, csr := request(w.t)
		return many(ctx, func() {
			_, _ = client.Enrol(ctx, &agentv1.EnrolRequest{
				Token: w.secret, CsrDer: csr, Name: "x", Role: "agent",
				Instance: "i",
			})
		})
	}},
	{"enrolments of 3 MB", func(ctx context.Context, w *hostile) int {
		client := agentv1.NewEnrolmentServiceClient(dial(w.t, w.at, stolen{}))
		big := strings.Repeat("t", 3<<20)
		return many(ctx, func() { _, _ = client.Enrol(ctx, &agentv1.EnrolRequest{Token: big}) })
	}},
	{"handshakes", func(ctx context.Context, w *hostile) int {
		return many(ctx, func() {
			d := tls.Dialer{Config: stolen{}.conf()}
			if conn, err := d.DialContext(ctx, "tcp", w.at); err == nil {
				_ = conn.Close()
			}
		})
	}},
}

// elsewhere floods from a process of its own, until stop is called: an attacker has
// a machine of its own, and takes none of the time of the coordinators' cores while
// those need it.
func (w *hostile) elsewhere(ctx context.Context, index int) (stop func() int) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.me.save(w.t, dir)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", os.Args[0], "-test.run", "^TestElsewhere$", "-test.v")
	cmd.Env = append(os.Environ(), "ATTACK="+strconv.Itoa(index), "ATTACK_AT="+w.at, "ATTACK_NAME="+w.name,
		"ATTACK_AS="+dir, "ATTACK_TOKEN="+w.secret)
	ends, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return func() int {
		w.t.Helper()
		defer cancel()
		_ = ends.Close()
		err := cmd.Wait()
		_, text, _ := strings.Cut(out.String(), "made ")
		text, _, _ = strings.Cut(text, " requests")
		n, bad := strconv.Atoi(text)
		if err != nil || bad != nil {
			w.t.Errorf("%s: %v\n%s", floods[index].name, err, &out)
		}
		return n
	}
}

// TestElsewhere is the process that floods, see elsewhere; it runs until its input
// ends.
func TestElsewhere(t *testing.T) {
	index, err := strconv.Atoi(os.Getenv("ATTACK"))
	if err != nil {
		t.Skip("nobody is to be flooded")
	}
	w := &hostile{
		t: t, name: os.Getenv("ATTACK_NAME"), at: os.Getenv("ATTACK_AT"), me: load(t, os.Getenv("ATTACK_AS")),
		secret: os.Getenv("ATTACK_TOKEN"),
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	t.Logf("made %d requests", floods[index].run(ctx, w))
}

// many calls f from ten goroutines until ctx ends.
func many(ctx context.Context, f func()) int {
	var n [10]int
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				f()
				n[i]++
			}
		})
	}
	all.Wait()
	sum := 0
	for _, k := range n {
		sum += k
	}
	return sum
}

// honest is how many hosts deploy beside the flood.
const honest = 20

// TestFloodsOfEachMessage: one hostile host and one without a credential flood
// a follower with each message, for a second and a half at least. Beside it an
// honest fleet deploys at the leader and at that follower. What the flood wrote is
// read from the logs of all coordinators.
func TestFloodsOfEachMessage(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.application("www", "web")
	c.application("evil", "evil")
	fl := &fleet{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	var hosts sync.WaitGroup
	t.Cleanup(hosts.Wait)
	t.Cleanup(cancel)
	token := c.token("agent", honest+20)
	for i := range honest {
		who := c.enrol("agent", fmt.Sprint("web-", i), token)
		s, err := c.session(ctx, c.nodes[i%2].Agents, who, &agentv1.Hello{
			Name: fmt.Sprint("web-", i), Zone: "a", Labels: map[string]string{"role": "web"},
		})
		if err != nil {
			t.Fatal(err)
		}
		hosts.Go(func() { fl.host(ctx, s) })
	}
	open := c.token("agent", 1)
	parts := strings.Split(open, ".")
	parts[2] = parts[2][:len(parts[2])-3] + "aaa"
	evil := map[string]bool{}
	c.until("the fleet is not there", func() bool { return c.members("www") == honest })

	revision := 1
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); revision++ {
		c.deploy("www", revision)
	}
	calm, acks := fl.p99()
	t.Logf("%-40s p99 of %d acknowledgements %s", "without a flood", acks, calm.Round(time.Millisecond))
	begin, made := time.Now(), 0
	for i, f := range floods {
		w := &hostile{t: t, name: fmt.Sprint("evil-", i), at: c.nodes[1].Agents, secret: strings.Join(parts, ".")}
		w.me = c.enrol("agent", w.name, token)
		evil[w.me.id] = true
		stay, err := c.session(ctx, w.at, w.me, &agentv1.Hello{
			Name: w.name, Zone: "a", Labels: map[string]string{"role": "evil"},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.until("the hostile host is no target of its own application", func() bool { return c.members("evil") == i+1 })
		_ = stay.CloseSend()
		n := 0
		for span := 1500 * time.Millisecond; n == 0 && span < 15*time.Second; span *= 2 {
			stop := w.elsewhere(ctx, i) // it may hardly begin, on a machine that is busy
			for end := time.Now().Add(span); time.Now().Before(end); revision++ {
				c.deploy("www", revision)
			}
			n = stop()
		}
		made += n
		p99, acks := fl.p99()
		t.Logf("%-40s %7d made; p99 of %d acknowledgements %s, %.1f times", f.name, n, acks,
			p99.Round(time.Millisecond),
			float64(p99)/float64(max(calm, 1)))
		if n == 0 || acks == 0 {
			t.Errorf("%s: %d requests, %d acknowledgements: nothing was shown", f.name, n, acks)
		}
	}
	took := time.Since(begin)
	cancel()
	hosts.Wait()
	for _, n := range c.nodes {
		n.stop()
	}
	var logs []written
	for _, n := range c.nodes {
		logs = append(logs, wrote(t, n, evil))
	}
	for i, x := range logs {
		t.Logf("c%d: of %d requests in %s: %+v", i+1, made, took.Round(time.Second), x)
		// Of two hosts whose own application is flooded, a bucket of a mebibyte each
		// and 32 KiB a second; some KiB of all others.
		if most := 2<<20 + int(took.Seconds()+1)*32<<10 + 64<<10; x.bytes > most {
			t.Errorf("c%d: %d bytes of hostile hosts, of %d that their buckets have", i+1, x.bytes, most)
		}
		if x.others > 0 {
			t.Errorf("c%d: %d reports about applications that the host is no target of", i+1, x.others)
		}
		if x.nameless > len(floods)*10 {
			t.Errorf("c%d: %d words of being reachable", i+1, x.nameless)
		}
		if x.enrolled > len(floods)+10 {
			t.Errorf("c%d: %d changes of labels", i+1, x.enrolled)
		}
		if x.processes > 40 {
			t.Errorf("c%d: %d processes of one agent", i+1, x.processes)
		}
		if x.tokens != honest+len(floods)+2 {
			t.Errorf("c%d: %d uses of tokens, by %d hosts and two coordinators", i+1, x.tokens, honest+len(floods))
		}
		if x.reports == 0 {
			t.Errorf("c%d: nothing of the host's own application is in the log: nothing was shown", i+1)
		}
		if x.generation > 1<<40 {
			t.Errorf("c%d: generation %d", i+1, x.generation)
		}
	}
}

// members counts the hosts of an application's group.
func (c *cluster) members(app string) int { return len(c.hosts(app)) }

// written is what one host wrote into a log.
type written struct {
	entries, bytes, reports, others, nameless, enrolled, tokens, processes int
	generation                                                             uint64
}

// wrote reads the log of a coordinator that does not run.
func wrote(t *testing.T, n *node, hosts map[string]bool) (out written) {
	t.Helper()
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: readable(t, n), MsgpackUseNewTimeFormat: true, BoltOptions: &bbolt.Options{ReadOnly: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	first, err := store.FirstIndex()
	if err != nil || first != 1 {
		t.Fatalf("the log begins at %d, %v: not all can be read", first, err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		e, err := state.Decode(l.Data)
		if err != nil {
			t.Fatal(err)
		}
		out.add(e, hosts)
	}
	return out
}

func (x *written) add(e state.Entry, hosts map[string]bool) {
	mine := state.Entry{}
	for _, ev := range e.Events {
		switch ev := ev.(type) {
		case deploy.HostEnrolled:
			if hosts[ev.Host] {
				x.enrolled++
				mine.Events = append(mine.Events, ev)
			}
		case deploy.TargetsReported:
			own := deploy.TargetsReported{}
			for _, r := range ev.Items {
				if !hosts[r.Host] {
					continue
				}
				own.Items = append(own.Items, r)
				x.reports++
				x.generation = max(x.generation, r.Gen)
				if r.App == "" {
					x.nameless++
				}
				if r.App != "evil" && r.App != "" { // nameless ones say that the host is reachable
					x.others++
				}
			}
			if len(own.Items) > 0 {
				mine.Events = append(mine.Events, own)
			}
		}
	}
	for _, ev := range e.Cluster {
		switch ev := ev.(type) {
		case state.TokenUsed:
			x.tokens++
		case state.InstanceBegan:
			if hosts[ev.Host] {
				x.processes++
			}
		}
	}
	if len(mine.Events) > 0 {
		x.entries++
		if b, err := state.Encode(mine); err == nil {
			x.bytes += len(b)
		}
	}
}

// TestSilenceEnds: connections that say nothing, or nothing more, are closed on
// every port, and are not let in without number.
func TestSilenceEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	n := c.nodes[0]
	var all sync.WaitGroup
	for port, addr := range map[string]string{"API": n.API, "agents": n.Agents, "raft": n.Raft, "gossip": n.Gossip} {
		for what, first := range map[string][]byte{
			"nothing": nil, "half a handshake": {
				0x16, 3, 1, 2, 0, 1, 0,
				1,
			}, "nonsense": []byte("GET / HTTP/1.0\r\n\r\n"),
		} {
			all.Go(func() {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Errorf("%s: %v", port, err)
					return
				}
				defer conn.Close()
				_, _ = conn.Write(first)
				_ = conn.SetReadDeadline(time.Now().Add(25 * time.Second))
				buf := make([]byte, 1<<10)
				for err == nil {
					_, err = conn.Read(buf)
				}
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Errorf("%s: who says %s is never sent away", port, what)
				}
			})
		}
	}
	all.Wait()
}

// TestSharesAreRefusedByName: what is refused says so, and in which words.
func TestSharesAreRefusedByName(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	who := c.enrol("agent", "web-1", c.token("agent", 1))
	client := agentv1.NewAgentServiceClient(c.dial(c.nodes[0].Agents, who))
	ended := make(chan error, 100)
	for range cap(ended) { // sessions that say no Hello stay open
		session, err := client.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, err := session.Recv(); ended <- err }()
	}
	select {
	case err := <-ended:
		if status.Code(err) != codes.ResourceExhausted ||
			!strings.Contains(err.Error(), "too many calls at once from agent/"+who.id) {
			t.Errorf("a hundred open calls end with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a hundred calls are open")
	}
	if _, err := c.api.ListHosts(t.Context(), nil); err != nil {
		t.Errorf("and an operator is refused for it: %v", err)
	}
	var open []*tls.Conn
	refused := 0
	for range 100 {
		conn, err := tls.Dial("tcp", c.nodes[0].Agents, who.conf())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	for _, conn := range open { // a server that lets in says its settings first
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 9)); err != nil {
			refused++
		}
		defer conn.Close()
	}
	if refused < 60 || refused > 80 {
		t.Errorf("of 100 connections of one agent %d were refused", refused)
	}
}
