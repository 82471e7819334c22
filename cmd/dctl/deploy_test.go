package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

var rewrite = flag.Bool("rewrite", false, "write golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (rewrite with -rewrite):\n%s", path, diff)
	}
}

func TestExitCodes(t *testing.T) {
	broken := func(d *controlv1.Deployment) { d.Broken = 1 }
	inverse := func(d *controlv1.Deployment) { d.Inverse = true }
	decision := func(d *controlv1.Deployment) { d.Decision = true }
	kind := func(k string) *fake { return &fake{fail: rpc.Errorf(k, "because of %s", k)} }
	end := func(d *controlv1.Deployment) *fake { return &fake{watch: ends(d)} }
	for _, c := range []struct {
		name string
		f    *fake
		want int
	}{
		{"succeeded", end(state(9, "succeeded")), 0},
		{"rolled back", end(state(9, "rolled_back")), 5},
		{"rolled back, broken", end(state(9, "rolled_back", broken)), 6},
		{"inverse", end(state(9, "rolled_back", inverse)), 0},
		{"inverse, broken", end(state(9, "rolled_back", inverse, broken)), 6},
		{"decision", end(state(9, "paused", decision)), 3},
		{"stopped", end(state(9, "stopped")), 3},
		{"cancelled", end(state(9, "cancelled")), 3},
		{"invalid", kind(rpc.KindInvalid), 2},
		{"not found", kind(rpc.KindNotFound), 2},
		{"conflict", kind(rpc.KindConflict), 7},
		{"exists", kind(rpc.KindExists), 7},
		{"forbidden", kind(rpc.KindForbidden), 4},
		{"unauthenticated", kind(rpc.KindUnauthorised), 4},
		{"internal", kind(rpc.KindInternal), 1},
		{"not an operator", &fake{role: identity.Agent}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newCluster(t)
			cl.context(cl.serve(c.f))
			got := cl.call("deploy", "--app", "www", "--rev", "9be01d7")
			if got.code != c.want {
				t.Errorf("exit %d, want %d\n%s%s", got.code, c.want, got.out, got.err)
			}
			if c.f.fail != nil && !strings.Contains(got.err, "dctl: because of") {
				t.Errorf("standard error: %s", got.err)
			}
		})
	}
}

func TestRollbackCommandIsDoneWhenRolledBack(t *testing.T) {
	cl := newCluster(t)
	f := &fake{watch: ends(state(9, "rolled_back"))}
	cl.context(cl.serve(f))
	if got := cl.call("rollback", "--app", "www"); got.code != 0 {
		t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
	}
}

// A person is asked about what would happen, by name.
func TestRollbackNamesTheRevision(t *testing.T) {
	cl := newCluster(t)
	f := &fake{watch: ends(state(9, "rolled_back"))}
	cl.context(cl.serve(f))
	for question, would := range map[string]*controlv1.RollbackResponse{
		"Take www from v7 back to v6? [y/N] ":                                            {From: "v7", To: "v6"},
		"Roll deployment 01D of v7 back, each host of www to what it ran before? [y/N] ": {Id: "01D", From: "v7"},
	} {
		f.would, f.rollbacks = would, nil
		answer := func(s string) called {
			return cl.callWith(t.Context(), func(c *cli) { c.inTTY, c.outTTY, c.in = true, true, strings.NewReader(s) },
				"rollback", "--app", "www", "--output", "plain")
		}
		if no := answer("n\n"); no.code != 1 || !strings.Contains(no.err, question) || len(f.rollbacks) != 1 ||
			!f.rollbacks[0].DryRun {
			t.Errorf("%+v %v", no, f.rollbacks)
		}
		if yes := answer("y\n"); yes.code != 0 || len(f.rollbacks) != 3 || f.rollbacks[2].DryRun {
			t.Errorf("%+v %v", yes, f.rollbacks)
		}
	}
}

func TestUsage(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{}))
	for _, c := range []struct{ args, want string }{
		{"deply", "did you mean `dctl deploy`?"},
		{"hosts lst", "did you mean `dctl hosts list`?"},
		{"deploy --aap www", "did you mean --app?"},
		{"deploy", "--app is missing; for instance:"},
		{"deploy --app www --rev x extra", `"extra" is one argument too many`},
		{"deploy --app www --rev x --wait-timeout 5", `"5" has no unit`},
		{"deploy --app www --rev x --force-bad", "say why with --reason"},
		{"watch", "ID is missing"},
		{"abort 01D", "--rollback or --leave"},
		{"abort 01D --rollback --leave", "--rollback or --leave"},
		{"status -o xml", `--output "xml" is not legal`},
		{"hosts list --group prod", "add --app"},
		{"token create --role root", "unknown role"},
		{"--context nope status", "no context \"nope\""},
		{"apps apply -f none.yaml", "there is no none.yaml"},
		{"apps lint none", "there is no none/deploy.yaml"},
		{"login x -C a:1", "--credentials is missing"},
		{"completion fihs", "did you mean `dctl completion fish`?"},
		{"revisions push --app www --rev v1 none", "open bundle"},
	} {
		got := cl.call(strings.Fields(c.args)...)
		if got.code != 2 || !strings.Contains(got.err, c.want) || got.out != "" {
			t.Errorf("%s: exit %d, out %q, err %q; want %q", c.args, got.code, got.out, got.err, c.want)
		}
	}
	bad := cl.callWith(t.Context(), func(c *cli) {
		c.getenv = func(name string) (string, bool) {
			return map[string]string{"DCTL_TIMEOUT": "soon"}[name], name == "DCTL_TIMEOUT"
		}
	}, "status")
	if bad.code != 2 || !strings.Contains(bad.err, "DCTL_TIMEOUT") {
		t.Errorf("environment: %+v", bad)
	}
}

// failing is a deployment that fails its way through everything that plain
// output can tell.
func failing() *fake {
	failed := func(r *controlv1.Record) {
		r.Failure = &controlv1.Failure{
			Event: "ValidateService", Script: "scripts/check.sh", Exit: "exit status 1",
			Message: "the health check said no",
			Tail:    "first\nGET /healthz\x1b[31m 500\n", DurationMs: 3200,
		}
	}
	text := func(s string) func(*controlv1.Record) { return func(r *controlv1.Record) { r.Text = s } }
	wave := func(r *controlv1.Record) { r.Wave = "all" }
	paused := state(8, "paused", func(d *controlv1.Deployment) {
		d.Decision, d.Cause = true,
			"1 failure in all, 0 allowed"
	})
	return &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(
			news(state(2, "pending"), rec(2, "deployment", "pending", text("9be01d7"))),
			news(state(4, "running"), rec(3, "deployment", "running"), rec(4, "wave", "deploying", wave)),
			news(state(5, "running"), rec(5, "task", "granted", onHost("web1", "a1", "all")),
				rec(5, "task", "granted", onHost("web2", "b1", "all"))),
			news(state(6, "running"), rec(6, "task", "settled", onHost("web1", "a1", "all"))),
			news(state(7, "running"), rec(7, "task", "failed", onHost("web2", "b1", "all"), failed),
				rec(7, "gate", "fail", wave, text("smoke: 3 of 3 answers were 500"))),
			news(paused, rec(8, "deployment", "paused", text("1 failure in all, 0 allowed"))),
		)
		return nil
	}}
}

func TestPlainOutput(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(failing()))
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7")
	if got.code != 3 || got.err != "" {
		t.Errorf("exit %d, err %q", got.code, got.err)
	}
	if strings.ContainsAny(got.out, "\x1b\r") {
		t.Errorf("escape sequence in %q", got.out)
	}
	golden(t, "plain.golden", got.out)
}

func TestJSONOutput(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(failing()))
	lines := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "-o", "jsonl")
	golden(t, "jsonl.golden", lines.out)
	if !strings.Contains(lines.err, "scripts/check.sh: exit status 1 after 3.2s") {
		t.Errorf("standard error lacks the failure: %q", lines.err)
	}
	one := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "-o", "json")
	var v struct {
		Result     string
		Deployment struct {
			Status string
			Index  uint64
			Hosts  int
		}
		Records []struct{ Index uint64 }
	}
	if err := json.Unmarshal([]byte(one.out), &v); err != nil || strings.Count(one.out, "\n") != 1 {
		t.Fatalf("%v in %q", err, one.out)
	}
	if v.Result != "waits_for_decision" || v.Deployment.Index != 8 || v.Deployment.Hosts != 2 || len(v.Records) != 9 ||
		one.code != 3 {
		t.Errorf("exit %d, %+v", one.code, v)
	}
}

// TestWatchSurvivesCoordinators breaks the stream in every way; the records
// must come once and in order.
func TestWatchSurvivesCoordinators(t *testing.T) {
	watch := func(n int, r *controlv1.WatchDeploymentRequest, send func(...*controlv1.WatchDeploymentResponse)) error {
		wave := func(i uint64) *controlv1.Record { return rec(i, "wave", fmt.Sprint("step", i), onHost("", "", "x")) }
		switch n {
		case 1: // a follower that lags behind the leader which created it
			return rpc.Errorf(rpc.KindNotFound, "no deployment 01D")
		case 2:
			send(news(state(3, "running"), wave(1), wave(2)), news(state(4, "running"), wave(3)))
			return rpc.Errorf(rpc.KindUnavailable, "leader lost")
		case 3: // older than what was seen, and repeats
			send(news(state(2, "pending"), wave(1), wave(2), wave(3)))
			return nil
		case 4:
			return context.Canceled
		default:
			send(news(state(5, "running"), wave(3), wave(4), wave(5)),
				news(state(6, "succeeded"), rec(6, "deployment", "succeeded")))
			return nil
		}
	}
	f := &fake{watch: watch}
	cl := newCluster(t)
	address := cl.serve(f)
	cl.context("127.0.0.1:1", address) // the first does not answer
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7")
	if got.code != 0 {
		t.Fatalf("exit %d: %s%s", got.code, got.out, got.err)
	}
	var steps []string
	for l := range strings.Lines(got.out) {
		if _, step, ok := strings.Cut(strings.TrimSpace(l), "wave x step"); ok {
			steps = append(steps, step)
		}
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, steps); diff != "" {
		t.Errorf("%s\n%s", diff, got.out)
	}
	if diff := cmp.Diff([]uint64{0, 0, 3, 3, 3}, f.watches); diff != "" {
		t.Errorf("resumed after %s", diff)
	}
	if strings.Contains(got.out, "pending") {
		t.Errorf("went back in time:\n%s", got.out)
	}
}

func TestMutationIsRepeatedWithOneID(t *testing.T) {
	f := &fake{watch: ends(state(9, "succeeded"))}
	f.create = func(r *controlv1.CreateDeploymentRequest) (*controlv1.CreateDeploymentResponse, error) {
		if len(f.requests) < 3 {
			return nil, rpc.Errorf(rpc.KindUnavailable, "no leader")
		}
		return &controlv1.CreateDeploymentResponse{Id: "01D"}, nil
	}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	if got := cl.call("deploy", "--app", "www", "--rev", "9be01d7"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if len(f.requests) != 3 || len(slices.Compact(slices.Clone(f.requests))) != 1 || len(f.requests[0]) != 26 {
		t.Errorf("request ids %v", f.requests)
	}
}

func TestUnreachableClusterSaysHowToRepeat(t *testing.T) {
	cl := newCluster(t)
	cl.context("127.0.0.1:1")
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "--timeout", "300ms")
	if got.code != 1 || !strings.Contains(got.err, "no answer from 127.0.0.1:1 within 300ms") ||
		!strings.Contains(got.err, "--request-id 0") {
		t.Errorf("%+v", got)
	}
}

func TestInterruptDetaches(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(state(2, "running"), rec(2, "deployment", "running")))
		interrupt()
		<-t.Context().Done()
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	got := cl.callWith(ctx, nil, "deploy", "--app", "www", "--rev", "9be01d7")
	if got.code != 130 || !strings.Contains(got.err, "dctl watch 01D") ||
		!strings.Contains(got.err, "dctl abort 01D --rollback") {
		t.Errorf("%+v", got)
	}
	if len(f.acts) != 0 {
		t.Errorf("detaching acted: %v", f.acts)
	}
}

func TestWatchTimeout(t *testing.T) {
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(state(2, "running")))
		<-t.Context().Done()
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "--wait-timeout", "200ms")
	if got.code != 8 || !strings.Contains(got.err, "dctl watch 01D") {
		t.Errorf("%+v", got)
	}
}

func TestManyHostsAreToldInBatches(t *testing.T) {
	var records []*controlv1.Record
	for i := range 60 {
		records = append(records, rec(3, "task", "settled", onHost(fmt.Sprintf("web%02d", i), "a1", "all")))
	}
	records = append(records, rec(3, "task", "failed", onHost("web60", "a1", "all")))
	cl := newCluster(t)
	cl.context(cl.serve(&fake{watch: ends(state(9, "succeeded", func(d *controlv1.Deployment) { d.Hosts = 61 }),
		records...)}))
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7")
	if !strings.Contains(got.out, "00:03 wave all: 60 hosts settled (web00, web01,") ||
		!strings.Contains(got.out, "00:03 web60 (a1, wave all) failed") {
		t.Errorf("%s", got.out)
	}
	if n := strings.Count(got.out, "\n"); n > 6 {
		t.Errorf("%d lines:\n%s", n, got.out)
	}
}

func TestDetachAndPlan(t *testing.T) {
	f := &fake{plan: &controlv1.PlanDeploymentResponse{
		App: "www", Group: "prod", Revision: "9be01d7", From: "4f2a91c", Changes: true, Index: 77, Concurrent: 1,
		EstimateMs: 61_000,
		Waves: []*controlv1.PlannedWave{{
			Name: "one-box", Hosts: []string{"web1"}, BakeMs: 60_000,
			Gates: []string{"smoke"},
		}, {Name: "rest", Hosts: []string{"web2", "web3"}}},
		Capacity: []string{"the group: 1 of 3 may be out at a time, at least 2 stay in service"},
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	if got := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "--detach"); got.code != 0 || got.out != "01D\n" {
		t.Errorf("detach: %+v", got)
	}
	golden(t, "plan.golden", cl.call("plan", "--app", "www", "--rev", "9be01d7").out)
	if got := cl.call("plan", "--app", "www", "--rev", "9be01d7", "--exit-code"); got.code != 10 {
		t.Errorf("exit %d", got.code)
	}
	if got := cl.call("deploy", "--app", "www", "--rev", "9be01d7", "--dry-run"); got.code != 0 ||
		len(f.requests) != 1 {
		t.Errorf("dry run: %+v, requests %v", got, f.requests)
	}
}

func TestActs(t *testing.T) {
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	for _, args := range []string{
		"pause 01D -m x", "resume 01D", "promote 01D", "retry 01D", "abort 01D --rollback",
		"abort 01D --leave",
	} {
		if got := cl.call(strings.Fields(args)...); got.code != 0 {
			t.Errorf("%s: %+v", args, got)
		}
	}
	want := []string{
		"01D pause x", "01D resume ", "01D promote ", "01D retry ", "01D abort-rollback ",
		"01D abort-leave ",
	}
	if diff := cmp.Diff(want, f.acts); diff != "" {
		t.Error(diff)
	}
	no := cl.callWith(t.Context(), func(c *cli) { c.inTTY, c.outTTY, c.in = true, true, strings.NewReader("n\n") },
		"abort", "01D", "--rollback")
	if no.code != 1 || len(f.acts) != len(want) {
		t.Errorf("not confirmed: %+v %v", no, f.acts)
	}
}

func TestExitCodeOfPlainErrors(t *testing.T) {
	for want, err := range map[int]error{
		0: nil, 1: errors.New("x"), 130: context.Canceled,
		2: fmt.Errorf("x: %w", usage("y")),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
