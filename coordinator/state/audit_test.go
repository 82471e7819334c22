package state

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/deploy"
)

// recording is a log at the level from which on requests are recorded.
type recording struct {
	t       *testing.T
	entries [][]byte
	stores  []*Store
	wall    int64
}

func newRecording(t *testing.T, level int) *recording {
	r := &recording{t: t, stores: []*Store{New(deploy.RulesKnown), New(deploy.RulesKnown)}, wall: 1000}
	for l := 2; l <= level; l++ {
		r.add(Entry{Entry: deploy.Entry{Events: []deploy.Event{deploy.RulesRaised{Level: l}}}})
	}
	return r
}

func (r *recording) add(e Entry) []error {
	r.t.Helper()
	r.wall += 10
	if e.Rules = 1; len(r.entries) > 0 {
		r.stores[0].View(func(s *deploy.State) { e.Rules = s.Rules })
	}
	e.At, e.Wall = deploy.Time(len(r.entries)), r.wall
	data, err := Encode(e)
	if err != nil {
		r.t.Fatal(err)
	}
	r.entries = append(r.entries, data)
	var out Applied
	for _, s := range r.stores {
		out = s.Apply(&raft.Log{Index: uint64(len(r.entries)), Data: data}).(Applied)
	}
	return out.Refusals
}

func (r *recording) audit() (l audit.Log) {
	r.stores[0].ViewCluster(func(c *Cluster) { l = c.Audit })
	return l
}

func asks(request, verb string) *audit.Asked {
	return &audit.Asked{Actor: "operator/ann", Address: "10.0.0.1", Verb: verb, What: verb, Request: request}
}

func revisionOf(request, name string) deploy.Event {
	return deploy.RevisionRegistered{
		Request: deploy.Request{ID: request, Actor: "ann"}, App: "www", Name: name, Digest: deploy.Digest("sha256:" + name),
	}
}

// TestRequestsAreRecorded: what was done, what was refused in the log, what nobody's
// session asked for; once each; and nothing that was asked again under other rights.
func TestRequestsAreRecorded(t *testing.T) {
	r := newRecording(t, AuditRules)
	r.add(Entry{Cluster: []ClusterEvent{ClusterCreated{ID: "c", Founders: []Founder{{"operator/ann", []byte{1}}}}}})
	push := Entry{Entry: deploy.Entry{Events: []deploy.Event{revisionOf("1", "v1")}}, Asked: asks("1", "push")}
	r.add(push)
	r.add(push) // again
	other := push
	other.Events = []deploy.Event{revisionOf("1", "v2")}
	r.add(other) // under its id
	both := Entry{
		Entry: deploy.Entry{Events: []deploy.Event{revisionOf("2/a", "v3"), deploy.GroupDeleted{App: "no", Group: "no"}}},
		Asked: asks("2", "define"),
	}
	r.add(both)
	stale := push
	stale.AllowedBy, stale.Asked, stale.Events = 99, asks("3", "push"), []deploy.Event{revisionOf("3", "v4")}
	r.add(stale)
	r.wall = 500 // the next leader's clock is behind
	r.add(Entry{Cluster: []ClusterEvent{TokenCreated{
		Request: deploy.Request{Actor: "ann"}, ID: "t", Role: "agent", Hash: HashToken("secret"), Life: int64(time.Hour),
		Uses: 2,
	}}, Asked: asks("4", "agent-token")})
	use := TokenUsed{
		ID: "t", Hash: HashToken("secret"), Role: "agent", Subject: "agent/h1", Key: []byte{7}, Address: "10.0.0.7",
	}
	wrong := use
	wrong.Hash, wrong.Key = HashToken("other"), []byte{8}
	r.add(Entry{Cluster: []ClusterEvent{use, wrong}})
	r.add(Entry{Cluster: []ClusterEvent{use}}) // its answer was lost
	for range 2 {
		r.add(Entry{Cluster: []ClusterEvent{IdentityRevoked{Identity: "agent/h1"}}, Asked: asks("5", "revoke-host")})
	}
	r.add(Entry{Cluster: []ClusterEvent{IdentityRevoked{Identity: "agent/h1"}}, Asked: asks("6", "revoke-host")})
	r.add(Entry{Cluster: []ClusterEvent{BreakGlassUsed{Name: "ann", Key: []byte{9}, Coordinator: "c1"}}})
	r.add(Entry{Cluster: []ClusterEvent{EpochBegun{Epoch: 2, Coordinator: "c1", Reason: "drill"}}})
	r.add(Entry{Cluster: []ClusterEvent{RequestsRefused{Items: []audit.Asked{
		{Actor: "operator/eve", Verb: "deploy", Outcome: "forbidden", Times: 300, Since: 17},
	}}}})
	r.add(Entry{}) // a tick

	var got []string
	l := r.audit()
	for _, rec := range l.Records {
		got = append(got, fmt.Sprintf("%s %s %s %d×%s at %d", rec.Actor, rec.Verb, rec.Request, rec.Times, rec.Outcome,
			rec.At))
	}
	want := []string{
		"operator/ann push 1 1×ok at 1050", "operator/ann push 1 1×conflict at 1070",
		"operator/ann define 2 1×partly not_found at 1080", "operator/ann agent-token 4 1×ok at 510",
		"agent/h1 enrol  1×ok at 520", "agent/h1 enrol  1×invalid at 520", "operator/ann revoke-host 5 1×ok at 540",
		"operator/ann revoke-host 6 1×ok at 560", "break-glass/ann break-glass  1×ok at 570",
		"coordinator/c1 epoch  1×ok at 580", "operator/eve deploy  300×forbidden at 590",
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := audit.Verify(l.Before, l.Records); err != nil {
		t.Error(err)
	}
	if i := slices.IndexFunc(l.Records, func(r audit.Record) bool { return r.Address == "10.0.0.7" }); i < 0 {
		t.Error("from where a host joined is not recorded")
	}
	same(t, r)
}

// same restores a snapshot at many places of a log and applies the rest: state, chain and
// bytes are those of who applied all of it.
func same(t *testing.T, r *recording) {
	t.Helper()
	want := encode(t, r.stores[0])
	if !bytes.Equal(want, encode(t, r.stores[1])) {
		t.Error("two replicas differ")
	}
	for cut := AuditRules; cut < len(r.entries); cut += max(1, len(r.entries)/7) {
		early, late := New(deploy.RulesKnown), New(deploy.RulesKnown)
		for i, data := range r.entries {
			l := &raft.Log{Index: uint64(i + 1), Data: data}
			if i < cut {
				early.Apply(l)
				continue
			}
			if i == cut {
				if err := late.Restore(io.NopCloser(bytes.NewReader(encode(t, early)))); err != nil {
					t.Fatal(err)
				}
				// raft does not apply what a snapshot has; the store would not record it again
				late.Apply(&raft.Log{Index: uint64(i), Data: r.entries[i-1]})
			}
			late.Apply(l)
		}
		if !bytes.Equal(want, encode(t, late)) {
			t.Errorf("who restored at entry %d differs", cut)
		}
	}
}

// TestNothingIsRecordedBelowItsLevel: coordinators of older builds apply these entries.
func TestNothingIsRecordedBelowItsLevel(t *testing.T) {
	r := newRecording(t, AuditRules-1)
	r.add(Entry{Entry: deploy.Entry{Events: []deploy.Event{revisionOf("1", "v1")}}, Asked: asks("1", "push")})
	r.add(Entry{Cluster: []ClusterEvent{EpochBegun{Epoch: 2, Coordinator: "c1", Reason: "drill"}}})
	if l := r.audit(); l.Seq != 0 {
		t.Errorf("recorded: %v", l.Records)
	}
	if bytes.Contains(encode(t, r.stores[0]), []byte("audit")) {
		t.Error("a snapshot below the level has an audit")
	}
}

// TestTheAuditIsBounded: records are forgotten by one fact, at every replica the same, and
// snapshots that were begun before stay what they were.
func TestTheAuditIsBounded(t *testing.T) {
	r := newRecording(t, AuditRules)
	fill := func(n int) {
		for range n / 50 {
			var items []audit.Asked
			for i := range 50 {
				items = append(items, audit.Asked{Actor: fmt.Sprint("operator/p", i), Verb: "deploy", Outcome: "forbidden"})
			}
			r.add(Entry{Cluster: []ClusterEvent{RequestsRefused{Items: items}}})
		}
	}
	fill(audit.Most + 500)
	shot, err := r.stores[0].Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := full(t, r.stores[0])
	r.add(Entry{Cluster: []ClusterEvent{AuditExported{Coordinator: "c1", Upto: 700}}})
	fill(1000)
	if l := r.audit(); l.Records[0].Seq != 701 || l.Lost != 0 || l.Exported != 700 {
		t.Errorf("kept from %d on, lost %d", l.Records[0].Seq, l.Lost)
	}
	r.add(Entry{Cluster: []ClusterEvent{AuditExported{Coordinator: "c1", Upto: 1 << 60}}})
	l := r.audit()
	if len(l.Records) != audit.Most || audit.Verify(l.Before, l.Records) != nil {
		t.Errorf("%d records", len(l.Records))
	}
	var got sink
	if err := shot.Persist(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("a snapshot of before is not what was: %v", err)
	}
	same(t, r)
}
