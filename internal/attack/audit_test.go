package attack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/groundswell/groundswell/coordinator"
	"github.com/groundswell/groundswell/coordinator/audit"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// quick has what is refused recorded at once.
func quick(o *coordinator.Options) { o.RefusedEvery = 300 * time.Millisecond }

// audit returns every record, oldest first, and checks the chain.
func (c *cluster) audit() (out []*controlv1.AuditRecord) {
	c.t.Helper()
	var before audit.Sum
	r := &controlv1.ListAuditRequest{PageSize: 50}
	for {
		page := again(c, c.api.ListAudit, r)
		out, before = append(out, page.Records...), sum(c.t, page.BeforeSum)
		if r.Before = page.Next; r.Before == 0 {
			break
		}
	}
	slices.Reverse(out)
	var records []audit.Record
	for _, r := range out {
		records = append(records, audit.Record{
			Seq: r.Seq, Index: r.Index, At: r.AtMs, Sum: sum(c.t, r.Sum), Asked: audit.Asked{
				Since: r.SinceMs, Actor: r.Actor, Address: r.Address, Verb: r.Verb, App: r.App, Group: r.Group, What: r.What,
				Reason: r.Reason, Request: r.Request, Outcome: r.Outcome, Times: r.Times, Said: r.Said,
			},
		})
	}
	if err := audit.Verify(before, records); err != nil {
		c.t.Fatal(err)
	}
	return out
}

func sum(t *testing.T, text string) (out audit.Sum) {
	t.Helper()
	if err := out.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return out
}

// find returns the records of which f says so.
func find(all []*controlv1.AuditRecord, f func(*controlv1.AuditRecord) bool) (out []*controlv1.AuditRecord) {
	for _, r := range all {
		if f(r) {
			out = append(out, r)
		}
	}
	return out
}

// audited waits until requests are recorded.
func (c *cluster) audited() {
	c.t.Helper()
	for i, n := range c.nodes {
		api := controlv1.NewControlServiceClient(c.dial(n.API, load(c.t, c.nodes[0].Operator)))
		c.until(fmt.Sprintf("c%d does not record", i+1), func() bool {
			s, err := api.ClusterStatus(c.t.Context(), &controlv1.ClusterStatusRequest{})
			return err == nil && s.Rules >= 4
		})
	}
}

// dialFrom dials from an address of this machine's own.
func (c *cluster) dialFrom(from, addr string, who stolen) *grpc.ClientConn {
	c.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(who.conf())),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// TestWhoAndFromWhere: through the leader and through followers a request is recorded with
// who made it and from where, whatever words of a coordinator its maker uses (K21).
func TestWhoAndFromWhere(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, quick)
	c.audited()
	c.application("www", "web")
	mallory := c.enrol("operator", "mallory", c.token("operator", 1))
	lies := metadata.Pairs(
		"groundswell-forwarded", "1", "groundswell-caller-role", "operator", "groundswell-caller-id", "admin",
		"groundswell-caller-key-bin", "x", "groundswell-caller-break-glass", "1", "groundswell-caller-address", "6.6.6.6",
		"x-forwarded-for", "6.6.6.6", "forwarded", "for=6.6.6.6",
	)
	for i, n := range c.nodes {
		from := fmt.Sprintf("127.0.0.%d", 10+i)
		api := controlv1.NewControlServiceClient(c.dialFrom(from, n.API, mallory))
		name := fmt.Sprint("v", i)
		c.until("the revision is not taken", func() bool {
			// "forwarded" makes a follower refuse to forward again, so half of the words are tried there
			for _, md := range []metadata.MD{lies, without(lies, "groundswell-forwarded")} {
				ctx := metadata.NewOutgoingContext(t.Context(), md)
				_, err := api.RegisterRevision(ctx, &controlv1.RegisterRevisionRequest{
					App: "www", Name: name, Digest: "sha256:" + strings.Repeat("ab", 32),
					Mutation: &controlv1.Mutation{RequestId: "request-" + name, Reason: "a reason"},
				})
				if err == nil {
					return true
				}
			}
			return false
		})
		// a refused one, too
		_, err := api.CreateDeployment(metadata.NewOutgoingContext(t.Context(), without(lies, "groundswell-forwarded")),
			&controlv1.CreateDeploymentRequest{App: "www", Revision: "nosuch"})
		if status.Code(err) != codes.NotFound {
			t.Errorf("no such revision: %v", err)
		}
	}
	refused := func(r *controlv1.AuditRecord) bool { return r.Actor == "operator/mallory" && r.Outcome == "not_found" }
	c.until("what was refused is not recorded", func() bool { return len(find(c.audit(), refused)) > 0 })
	all := c.audit()
	for i := range c.nodes {
		from, what := fmt.Sprintf("127.0.0.%d", 10+i), fmt.Sprintf("RegisterRevision app=www name=v%d", i)
		got := find(all, func(r *controlv1.AuditRecord) bool { return strings.HasPrefix(r.What, what) })
		if len(got) != 1 || got[0].Actor != "operator/mallory" || got[0].Address != from || got[0].Outcome != "ok" ||
			got[0].Reason != "a reason" || got[0].Request != fmt.Sprint("request-v", i) || got[0].Verb != "push" ||
			got[0].App != "www" {
			t.Errorf("through c%d: %v", i+1, got)
		}
	}
	for _, r := range all {
		if strings.Contains(fmt.Sprint(r), "6.6.6.6") || strings.HasPrefix(r.Actor, "break-glass") {
			t.Errorf("a client's word is believed: %v", r)
		}
	}
	enrolled := find(all, func(r *controlv1.AuditRecord) bool { return r.Verb == "enrol" && r.Actor == "operator/mallory" })
	if len(enrolled) != 1 || enrolled[0].Address != "127.0.0.1" || !strings.Contains(enrolled[0].What, "made_by=admin") {
		t.Errorf("who joined is recorded as %v", enrolled)
	}
}

func without(md metadata.MD, key string) metadata.MD {
	md = md.Copy()
	md.Delete(key)
	return md
}

// TestOneRequestIsOneRecord: however often it is made, at whichever replica; another one
// under its id is another record.
func TestOneRequestIsOneRecord(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, quick)
	c.audited()
	var apis []controlv1.ControlServiceClient
	for _, n := range c.nodes {
		apis = append(apis, controlv1.NewControlServiceClient(c.dial(n.API, load(t, c.nodes[0].Operator))))
	}
	register := func(name string) *controlv1.RegisterRevisionRequest {
		return &controlv1.RegisterRevisionRequest{
			App: "www", Name: name, Digest: "sha256:" + strings.Repeat("ab", 32),
			Mutation: &controlv1.Mutation{RequestId: "one"},
		}
	}
	document := &controlv1.ApplyAccessRequest{
		Source:   []byte("version: 1\nrules: [{people: [admin], role: admin, applications: [\"*\"]}]\n"),
		Mutation: &controlv1.Mutation{RequestId: "two"},
	}
	var racing sync.WaitGroup
	for i := range 30 {
		racing.Go(func() {
			again(c, apis[i%3].RegisterRevision, register("v1"))
			again(c, apis[i%3].ApplyAccess, document)
		})
	}
	racing.Wait()
	token := again(c, c.api.CreateToken, &controlv1.CreateTokenRequest{Mutation: &controlv1.Mutation{RequestId: "three"}})
	for range 3 {
		again(c, c.api.RevokeToken, &controlv1.RevokeTokenRequest{
			Id: token.Id, Mutation: &controlv1.Mutation{RequestId: "four"},
		})
	}
	again(c, c.api.CreateToken, &controlv1.CreateTokenRequest{Mutation: &controlv1.Mutation{RequestId: "three"}})
	if _, err := c.api.RegisterRevision(t.Context(), register("v2")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("another request under the id of a former one: %v", err)
	}
	all := c.audit()
	for request, want := range map[string][]string{
		"one": {"ok", "conflict"}, "two": {"ok"}, "three": {"ok", "ok"}, "four": {"ok"},
	} {
		var got []string
		for _, r := range find(all, func(r *controlv1.AuditRecord) bool { return r.Request == request }) {
			got = append(got, r.Outcome)
		}
		if !slices.Equal(got, want) {
			t.Errorf("request %s is recorded as %v, want %v", request, got, want)
		}
	}
}

// TestWhoReadsTheAudit: rows are filtered by rights, and the head is for who reads all.
func TestWhoReadsTheAudit(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	y.audited()
	for _, app := range []string{own, other} {
		again(y.cluster, y.api.SetFreeze, &controlv1.SetFreezeRequest{
			App: app, Mutation: &controlv1.Mutation{Reason: "of " + app},
		})
	}
	for i, n := range y.nodes {
		api := controlv1.NewControlServiceClient(y.dial(n.API, y.people["trusted"]))
		// only of group prod: what concerns the application whole is not theirs
		again(y.cluster, y.api.SetFreeze, &controlv1.SetFreezeRequest{App: own, Group: "prod"})
		var out *controlv1.ListAuditResponse
		y.until("a replica does not show what is recorded", func() bool {
			out = again(y.cluster, api.ListAudit, &controlv1.ListAuditRequest{})
			return len(out.Records) > i
		})
		if out.Head != 0 || out.HeadSum != "" || out.BeforeSum != "" {
			t.Errorf("who reads a part is told of the whole: %v", out)
		}
		for _, r := range out.Records {
			if r.App != own || r.Group != "prod" {
				t.Errorf("c%d shows a row of %s/%s: %v", i+1, r.App, r.Group, r)
			}
		}
	}
	for _, who := range []string{"viewer", "deployer", "operator", "stranger"} {
		api := controlv1.NewControlServiceClient(y.dial(y.nodes[0].API, y.people[who]))
		if _, err := api.ListAudit(t.Context(), &controlv1.ListAuditRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s reads the audit: %v", who, err)
		}
	}
}

// TestAFloodOfRefusals: whoever is refused again and again makes a few records with the
// right count, beside which what others do is found; and no text of theirs is a line.
func TestAFloodOfRefusals(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, quick)
	c.audited()
	mallory := c.enrol("operator", "mallory", c.token("operator", 1))
	again(c, c.api.ApplyAccess, &controlv1.ApplyAccessRequest{
		Source: []byte("version: 1\nrules: [{people: [admin], role: admin, applications: [\"*\"]}]\n"),
	})
	c.until("the document is not in force", func() bool {
		for _, n := range c.nodes {
			api := controlv1.NewControlServiceClient(c.dial(n.API, mallory))
			if out, err := api.WhoAmI(t.Context(), &controlv1.WhoAmIRequest{}); err != nil || out.AccessIndex == 0 {
				return false
			}
		}
		return true
	})
	evil := "x\n2026-01-01 operator/admin ok\x1b[2J\u202e" + strings.Repeat("語", 20_000)
	const each = 150
	var flood sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for _, n := range c.nodes {
		api := controlv1.NewControlServiceClient(c.dial(n.API, mallory))
		flood.Go(func() {
			for i := range each {
				m := &controlv1.Mutation{Reason: evil, RequestId: evil}
				for _, err := range []error{
					second(api.CreateDeployment(t.Context(), &controlv1.CreateDeploymentRequest{
						Mutation: m, App: fmt.Sprint("app", i),
					})),
					second(api.CordonHost(t.Context(), &controlv1.CordonHostRequest{Mutation: m, Host: evil})),
					second(api.ListAudit(t.Context(), &controlv1.ListAuditRequest{})),
				} {
					if code := status.Code(err); code == codes.PermissionDenied || code == codes.NotFound {
						mu.Lock()
						refused++
						mu.Unlock()
					} else if code != codes.ResourceExhausted && code != codes.Unavailable {
						t.Errorf("mallory: %v", err)
					}
				}
			}
		})
	}
	flood.Wait()
	again(c, c.api.CreateToken, &controlv1.CreateTokenRequest{Mutation: &controlv1.Mutation{Reason: "beside a flood"}})
	told, records := 0, 0
	c.until("not all that was refused is recorded", func() bool {
		told, records = 0, 0
		for _, r := range find(c.audit(), func(r *controlv1.AuditRecord) bool { return r.Actor == "operator/mallory" }) {
			if r.Outcome != "ok" {
				told, records = told+int(r.Times), records+1
			}
		}
		return told >= refused
	})
	t.Logf("%d refused requests are %d records", refused, records)
	if told != refused || refused < each || records > refused/10 {
		t.Errorf("%d refused requests are told as %d in %d records", refused, told, records)
	}
	for _, r := range c.audit() {
		line := fmt.Sprint(r.Actor, r.Address, r.Verb, r.App, r.Group, r.What, r.Reason, r.Request, r.Outcome, r.Said)
		if strings.ContainsAny(line, "\n\x1b\u202e\r") || len(line) > 6<<10 {
			t.Errorf("record %d has %d bytes: %.200q", r.Seq, len(line), line)
		}
	}
	if len(find(c.audit(), func(r *controlv1.AuditRecord) bool { return r.Reason == "beside a flood" })) != 1 {
		t.Error("what was done beside a flood is not found")
	}
}

func second[A any](_ A, err error) error { return err }

// lines collects what coordinators log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestNoSecretIsWritten: no secret of a token, no private key and no key of the ring is in
// the audit, in raft's files and snapshots, in what is exported or in what is logged.
func TestNoSecretIsWritten(t *testing.T) {
	t.Parallel()
	logged := &lines{}
	c := newClusterOf(t, 3, func(o *coordinator.Options) {
		quick(o)
		o.Log = slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c.audited()
	secrets := map[string]string{}
	token := c.token("agent", 3)
	secrets["the secret of a token that was used"] = token
	c.enrol("agent", "web-1", token)
	secrets["the secret of a person's token"] = c.token("operator", 1)
	c.enrol("operator", "mallory", secrets["the secret of a person's token"])
	unused := c.token("coordinator", 1)
	secrets["the secret of a token that nobody used"] = unused
	document := []byte("app: www\nartifacts: " + c.store + "\n# canary-in-a-file-7193\nnonsense: canary-in-a-file-7193\n")
	if _, err := c.api.ApplyApp(t.Context(), &controlv1.ApplyAppRequest{Source: document}); err == nil {
		t.Error("a file with nonsense was taken")
	}
	secrets["the content of a file that was refused"] = "canary-in-a-file-7193"
	// people paste a token where its id belongs, and say why
	for _, id := range []string{unused, "x " + unused + " y"} {
		_, _ = c.api.RevokeToken(t.Context(), &controlv1.RevokeTokenRequest{
			Id: id, Mutation: &controlv1.Mutation{Reason: "close " + unused, RequestId: unused},
		})
	}
	again(c, c.api.SetFreeze, &controlv1.SetFreezeRequest{Mutation: &controlv1.Mutation{Reason: "until " + unused + "!"}})
	again(c, c.api.Snapshot, &controlv1.SnapshotRequest{})
	c.until("what was refused is not recorded", func() bool {
		return len(find(c.audit(), func(r *controlv1.AuditRecord) bool { return r.Verb == "ApplyApp" })) > 0
	})
	for _, n := range c.nodes {
		err := filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".key") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if block, _ := pem.Decode(b); block != nil {
				b = block.Bytes[len(block.Bytes)/3:] // the head of it is alike for all keys
			}
			secrets[path] = string(b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(secrets) < 10 {
		t.Fatalf("only %d secrets are looked for", len(secrets))
	}
	for _, n := range c.nodes {
		n.stop() // everything is written
	}
	looked := 0
	look := func(where string, data []byte) {
		looked++
		for what, s := range secrets {
			forms := []string{
				s, base64.StdEncoding.EncodeToString([]byte(s))[:min(24, len(s))], hex.EncodeToString([]byte(s)),
				strings.TrimSpace(s),
			}
			for _, form := range forms {
				if len(form) >= 12 && bytes.Contains(data, []byte(form)) && !strings.HasSuffix(where, what) {
					t.Errorf("%s is in %s", what, where)
				}
			}
		}
	}
	look("the log of the coordinators", []byte(logged.String()))
	for _, n := range c.nodes {
		for _, dir := range []string{"raft", "audit"} {
			err := filepath.WalkDir(filepath.Join(n.dir, dir), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(path)
				if err == nil {
					look(path, b)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	exported := 0
	for _, n := range c.nodes {
		names, _ := filepath.Glob(filepath.Join(n.dir, "audit", "*.jsonl"))
		for _, name := range names {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			h, records, _, err := audit.ReadLines(f)
			_ = f.Close()
			if err == nil {
				err = audit.Verify(h.Before, records)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			exported += len(records)
		}
	}
	if looked < 10 || exported < 3*6 {
		t.Errorf("%d files were looked through, and %d records are exported", looked, exported)
	}
}

// TestAnEmergencyIsLoud: who may goes past a freeze and an approval with a reason, and not
// without; plan, status, records and audit say so; and nobody else may (K11).
func TestAnEmergencyIsLoud(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	y.audited()
	trusted := controlv1.NewControlServiceClient(y.dial(y.nodes[1].API, y.people["trusted"]))
	deployer := controlv1.NewControlServiceClient(y.dial(y.nodes[1].API, y.people["deployer"]))
	again(y.cluster, y.api.ApplyApp, &controlv1.ApplyAppRequest{Source: fmt.Appendf(nil,
		"app: %s\nartifacts: %s\nconfigs:\n  own:\n    preGates: [go]\n"+
			"    gates: {go: {approval: {count: 2}}}\n    waves: [{name: all, select: remainder}]\n"+
			"groups:\n  prod: {select: 'role == %q', config: own}\n", own, y.store, own)})
	again(y.cluster, y.api.RegisterRevision, &controlv1.RegisterRevisionRequest{
		App: own, Name: "v2", Digest: "sha256:" + strings.Repeat("cd", 32),
	})
	r := &controlv1.CreateDeploymentRequest{App: own, Group: "prod", Revision: "v2", Emergency: true}
	plan := again(y.cluster, trusted.PlanDeployment, &controlv1.PlanDeploymentRequest{Deployment: r})
	if notes := strings.Join(plan.Notes, "\n"); !strings.Contains(notes, "an EMERGENCY") ||
		!strings.Contains(notes, "frozen by admin") || !strings.Contains(notes, "gate go needs 2 approvals") {
		t.Errorf("the plan does not say what it goes past: %q", notes)
	}
	if _, err := trusted.CreateDeployment(t.Context(), r); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a reason: %v", err)
	}
	r.Mutation = &controlv1.Mutation{Reason: "customers cannot log in"}
	if _, err := deployer.CreateDeployment(t.Context(), r); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a deployer's emergency: %v", err)
	}
	made := again(y.cluster, trusted.CreateDeployment, r)
	got := again(y.cluster, trusted.GetDeployment, &controlv1.GetDeploymentRequest{Id: made.Id})
	if want := "by trusted: customers cannot log in"; got.Deployment.Emergency != want ||
		len(got.Records) == 0 || !strings.Contains(got.Records[0].Text, "EMERGENCY") {
		t.Errorf("status: %q, records %v", got.Deployment.Emergency, got.Records)
	}
	held := y.places[own].deployment // frozen by the admin
	_, err := trusted.Act(t.Context(), &controlv1.ActRequest{Deployment: held, Verb: "emergency"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("promoted without a reason: %v", err)
	}
	again(y.cluster, trusted.Act, &controlv1.ActRequest{
		Deployment: held, Verb: "emergency", Mutation: &controlv1.Mutation{Reason: "it too"},
	})
	records := find(y.audit(), func(r *controlv1.AuditRecord) bool {
		return slices.Contains(strings.Fields(r.Verb), "emergency") && r.Outcome == "ok"
	})
	if len(records) != 2 || records[0].Reason != "customers cannot log in" || records[1].Reason != "it too" ||
		records[0].Actor != "operator/trusted" || !strings.Contains(records[0].What, "emergency=true") ||
		!strings.Contains(records[0].What, "deployment="+made.Id) {
		t.Errorf("audit: %v", records)
	}
}
