package coordinator

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// rules waits until the log's rules are at a level and returns what it saw last.
func rules(t *testing.T, c controlv1.ControlServiceClient, level int32) int32 {
	t.Helper()
	var last int32
	for range 200 {
		out, err := c.ClusterStatus(t.Context(), &controlv1.ClusterStatusRequest{})
		if err == nil {
			if last = out.Rules; last == level {
				break
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return last
}

// TestRulesAreRaisedByTheLastVoter upgrades three coordinators one by one to a
// build that knows one level more: the level is raised once the last one
// announced it, and an older build refuses the log from then on.
func TestRulesAreRaisedByTheLastVoter(t *testing.T) {
	next := deploy.RulesKnown + 1
	options := []Options{{Name: "c1", Dir: t.TempDir(), Bootstrap: true, Rules: next}}
	nodes := []*node{start(t, options[0])}
	_, control := operator(t, nodes[0])
	if got := rules(t, control, int32(next)); got != int32(next) {
		t.Fatalf("alone, rules are at %d, want %d", got, next)
	}
	// A voter that knows less is refused: the log has what it cannot apply.
	out, err := control.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
	if err != nil {
		t.Fatal(err)
	}
	token := func() (identity.Token, error) { return identity.ParseToken(out.Token) }
	o := Options{Name: "c2", Dir: t.TempDir(), Join: []string{nodes[0].addr.API}, Token: token, Rules: next}
	second := start(t, o)
	second.stop()
	o.Rules, o.Join, o.Token = deploy.RulesKnown, nil, nil
	err = refused(t, o)
	if err == nil || !strings.Contains(err.Error(), "install the newer build again") {
		t.Errorf("an older build started on newer rules: %v", err)
	}
}

func TestRulesWaitForEveryVoter(t *testing.T) {
	next := deploy.RulesKnown + 1
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, control := operator(t, first)
	join := func(o Options) (*node, Options) {
		out, err := control.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
		if err != nil {
			t.Fatal(err)
		}
		o.Dir, o.Join = t.TempDir(), []string{first.addr.API}
		o.Token = func() (identity.Token, error) { return identity.ParseToken(out.Token) }
		return start(t, o), o
	}
	third, o := join(Options{Name: "c3"})
	join(Options{Name: "c2", Rules: next})
	if got := rules(t, control, deploy.RulesKnown); got != deploy.RulesKnown {
		t.Fatalf("rules are at %d before every voter knows them", got)
	}
	third.stop()
	o.Rules, o.Join, o.Token, o.Raft = next, nil, nil, third.addr.Raft // where the others look for it
	start(t, o)
	if got := rules(t, control, deploy.RulesKnown); got != deploy.RulesKnown {
		t.Errorf("rules are at %d although c1 knows %d alone", got, deploy.RulesKnown)
	}
}

// TestStateFromBeforeIsRefused writes a log as builds before the first level did.
func TestStateFromBeforeIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	first.stop()
	path := filepath.Join(dir, "raft", "raft.db")
	log, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := log.LastIndex()
	old, err := state.Encode(state.Entry{Entry: deploy.Entry{Events: []deploy.Event{deploy.FreezeSet{}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(&raft.Log{Index: last + 1, Term: 2, Type: raft.LogCommand, Data: old}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	err = refused(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	if err == nil || !strings.Contains(err.Error(), "before logs had checksums") ||
		!strings.Contains(err.Error(), "begin anew") {
		t.Errorf("a log from before was opened: %v", err)
	}
}

// refused runs a coordinator that should not start.
func refused(t *testing.T, o Options) error {
	t.Helper()
	for _, a := range []*string{&o.API, &o.Agents, &o.Raft, &o.Gossip} {
		*a = "127.0.0.1:0"
	}
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return Run(ctx, o)
}
