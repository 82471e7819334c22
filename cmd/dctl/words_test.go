package main

import (
	"strings"
	"testing"

	"github.com/groundswell/groundswell/cmd/dctl/watch"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// A part of a deployment can be taken back only while it is in flight, and by a
// name that it has.
func TestRollbackOfAPart(t *testing.T) {
	zones := func(d *controlv1.Deployment) {
		d.Waves = []*controlv1.Wave{{Name: "one-box"}, {Name: "zones/a1", Zone: "a1"}, {Name: "zones/b1", Zone: "b1"}}
		d.Tasks = []*controlv1.Task{{Name: "web1", Zone: "a1"}, {Name: "web9", Zone: "c1"}}
	}
	f := &fake{get: &controlv1.GetDeploymentResponse{Deployment: state(4, "running", zones)}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	for args, want := range map[string]string{
		"--zone a2":       `has no zone "a2"; there are a1, b1, c1`,
		"--wave zones/c1": `has no wave "zones/c1"; there are one-box, zones/a1, zones/b1`,
	} {
		got := cl.call(append([]string{"rollback", "--app", "www"}, strings.Fields(args)...)...)
		if got.code != 2 || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := cl.call("rollback", "--app", "www", "--zone", "c1"); got.code != 0 || len(f.acts) != 1 {
		t.Errorf("%+v, %v", got, f.acts)
	}
	f.get.Deployment = state(9, "succeeded", zones)
	got := cl.call("rollback", "--app", "www", "--zone", "a1")
	if got.code != exitRefused || !strings.Contains(got.err, "no deployment of www is in flight") || len(f.acts) != 1 {
		t.Errorf("with nothing in flight: %+v", got)
	}
}

// After a zone was taken back by request the way on is offered.
func TestTheWayOnWithoutAZone(t *testing.T) {
	var out strings.Builder
	watch.NextSteps(&out, state(4, "paused", func(d *controlv1.Deployment) {
		d.Decision = true
		d.Waves = []*controlv1.Wave{
			{Name: "zones/a1", Zone: "a1", Status: "reverted"},
			{Name: "zones/b1", Zone: "b1", Status: "sealed"},
		}
	}), nil)
	if got := out.String(); !strings.Contains(got, "dctl skip-zone 01D a1  #") || strings.Contains(got, "b1") {
		t.Error(got)
	}
}

// Who waits for a host that nobody reaches is told which, and how to go on.
func TestStatusNamesTheUnreached(t *testing.T) {
	d := state(4, "running", func(d *controlv1.Deployment) {
		d.Tasks = []*controlv1.Task{
			{Name: "web1", Zone: "a1", Status: "waiting", Cause: "unreachable"},
			{Name: "web2", Zone: "a1", Status: "granted"},
		}
		d.Holds = []string{"all: unreachable or not staged: [web1]", "all: works on: [web2]"}
	})
	cl := newCluster(t)
	cl.context(cl.serve(&fake{get: &controlv1.GetDeploymentResponse{Deployment: d}}))
	got := cl.call("status", "01D")
	for _, want := range []string{
		"\n  all: unreachable or not staged: [web1]\n  all: works on: [web2]\n", "web1  a1    all   waiting  -       unreachable",
		"next:\n  dctl skip-host 01D web1  # go on without them\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("want %q in\n%s", want, got.out)
		}
	}
}

// Who queues behind a deployment that halts is told which, once, and the ways on.
func TestTheQueueNamesWhoHalts(t *testing.T) {
	queued := func(index uint64) *controlv1.Deployment {
		return state(index, "pending", func(d *controlv1.Deployment) {
			d.Behind = &controlv1.Behind{
				Id: "01C", Revision: "4f2a91c", Status: "paused", Cause: "one-box: 1 failed", Decision: true,
			}
		})
	}
	f := &fake{watch: func(_ int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(queued(4), rec(4, "deployment", "pending")), news(queued(5)))
		send(news(state(9, "succeeded"), rec(9, "deployment", "succeeded")))
		return nil
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	got := cl.call("deploy", "--app", "www", "--rev", "9be01d7")
	for _, want := range []string{
		"waits for 4f2a91c (01C), which is paused: one-box: 1 failed\n", "dctl status 01C  #", "dctl retry 01C  #",
		"dctl abort 01C --rollback  #", "dctl abort 01D --leave  # end this one instead",
	} {
		if strings.Count(got.out, want) != 1 {
			t.Errorf("want %q once in\n%s", want, got.out)
		}
	}
	var out strings.Builder
	watch.NextSteps(&out, state(4, "pending", func(d *controlv1.Deployment) {
		d.Behind = &controlv1.Behind{Id: "01C", Status: "running", WaitsFor: []string{"people"}}
	}), nil)
	if got := out.String(); !strings.Contains(got, "dctl approve 01C") || strings.Contains(got, "promote") {
		t.Error(got)
	}
}

// The status of a cluster that has just started waits for its leader; that of one
// without a quorum does not.
func TestClusterStatusWaitsForALeader(t *testing.T) {
	for _, c := range []struct {
		leaderless int
		missing    []string
		want       string
		left       int
	}{
		{3, nil, "cluster 01C", 0},
		{1000, nil, "NO LEADER", 1000 - leaderLooks},
		{3, []string{"c2"}, "MISSING c2, NO LEADER", 2},
	} {
		f := &fake{leaderless: c.leaderless, missing: c.missing}
		cl := newCluster(t)
		cl.context(cl.serve(f))
		if got := cl.call("cluster", "status"); got.code != 0 || !strings.Contains(got.out, c.want) ||
			f.leaderless != c.left {
			t.Errorf("%+v: %+v, %d left", c, got, f.leaderless)
		}
	}
}

// A failure is told once: where the hosts are listed the cause does not repeat
// it, and a watch that told it line by line does not at its end.
func TestAFailureIsToldOnce(t *testing.T) {
	const why = "exit status 1 of scripts/check.sh"
	failure := &controlv1.Failure{Event: "ValidateService", Exit: why, Tail: "the last line\n"}
	d := state(9, "rolled_back", func(d *controlv1.Deployment) {
		d.Cause = "wave all: 1 failed, its budget is 0 (web1: " + why + ")"
		d.Tasks = []*controlv1.Task{{Name: "web1", Zone: "a1", Status: "failed", Failure: failure}}
	})
	failed := rec(5, "task", "failed", onHost("web1", "a1", "all"), func(r *controlv1.Record) { r.Failure = failure })
	cause := func(r *controlv1.Record) { r.Text = d.Cause }
	f := &fake{
		get:   &controlv1.GetDeploymentResponse{Deployment: d, Records: []*controlv1.Record{failed}},
		watch: ends(d, failed, rec(6, "deployment", "rolling_back", cause)),
	}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	for _, args := range []string{"status 01D", "watch 01D"} {
		got := cl.call(strings.Fields(args)...)
		if strings.Count(got.out, why) != 1 || strings.Count(got.out, "the last line") != 1 ||
			strings.Count(got.out, "its budget is 0") != 1 {
			t.Errorf("dctl %s:\n%s", args, got.out)
		}
	}
}

// The words of a list of hosts that are no everyday ones are explained there.
func TestWordsOfHosts(t *testing.T) {
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	if got := cl.call("hosts", "list"); got.err != "no host matches\n" {
		t.Errorf("%+v", got)
	}
	f.hosts = []*controlv1.Host{{Name: "web1", State: "degraded", Quarantine: "cordoned", Revoked: "ann"}}
	got := cl.call("hosts", "list")
	if !strings.HasPrefix(got.err, "degraded: ") || !strings.Contains(got.err, "\nquarantined: ") ||
		!strings.Contains(got.err, "\nrevoked: ") || !strings.Contains(got.out, "degraded, quarantined, revoked") {
		t.Errorf("%+v", got)
	}
	if got := cl.call("hosts", "list", "-o", "json"); got.err != "" {
		t.Errorf("for a program: %+v", got)
	}
}
