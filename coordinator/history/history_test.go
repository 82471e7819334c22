package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/coordinator/archive"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// world is a state, what people ask of it, and the store beside it.
type world struct {
	*testing.T
	s      *deploy.State
	dir    string
	faults faults
	m      *Mover
	sight  control.Sight
	n      int
	refuse error // of the log
}

func (w *world) View(f func(*deploy.State)) { f(w.s) }
func (w *world) WatchDeployment(string) (<-chan struct{}, func()) {
	return make(chan struct{}), func() {}
}
func (w *world) Now() deploy.Time               { return w.s.Now }
func (w *world) Status(string) (string, string) { return "connected", "c1" }
func (w *world) Propose(_ context.Context, events []deploy.Event) ([]error, error) {
	if w.refuse != nil {
		return nil, w.refuse
	}
	at := w.s.Now.Add(time.Second)
	return w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: at, Wall: int64(w.s.Index), Events: events}), nil
}

func (w *world) apply(events ...deploy.Event) {
	w.Helper()
	refusals, err := w.Propose(w.Context(), events)
	if err = errors.Join(append(refusals, err)...); err != nil {
		w.Fatal(err)
	}
}

// faults is a store that fails as a test says.
type faults struct {
	archive.Store
	put, open fault
}

// fault is set by the test while a mover works.
type fault struct{ is atomic.Pointer[error] }

func (f *fault) set(err error) { f.is.Store(&err) }

func (f *fault) err() error {
	if err := f.is.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *faults) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := f.put.err(); err != nil {
		return err
	}
	return f.Store.Put(ctx, key, r, size)
}

func (f *faults) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.open.err(); err != nil {
		return nil, err
	}
	return f.Store.Open(ctx, key, offset, length)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, s: deploy.NewState(), dir: t.TempDir()}
	store, err := dirstore.New(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.faults.Store = store
	w.s.Violated = func(err error) { t.Error(err) }
	for level := 2; level <= deploy.RulesKnown; level++ {
		w.apply(deploy.RulesRaised{Level: level})
	}
	for i, app := range []string{"www", "api"} {
		c, _ := deploy.Builtin("all-at-once")
		host := fmt.Sprint("h", i)
		w.apply(
			deploy.GroupDefined{App: app, Group: "prod", Config: c},
			deploy.HostEnrolled{Host: host, Name: "web-" + host, Zone: "a"},
			deploy.TargetsJoined{App: app, Group: "prod", Hosts: []string{host}},
			deploy.RevisionRegistered{App: app, Name: "v1", Digest: "sha256:1"},
		)
	}
	w.m = &Mover{
		View: w.View, Propose: w.Propose, Now: w.Now, Whole: w.service().Whole, Archive: archive.New(&w.faults, Folder),
		After: time.Nanosecond, Told: func(error) {},
	}
	return w
}

// service is a replica's, which has read nothing of the store yet.
func (w *world) service() *control.Service {
	return control.New(control.Options{
		State: w, Log: w, Fleet: w, Actor: func(context.Context) string { return "ann" },
		Activity: func(string, string) (control.Activity, bool) { return control.Activity{}, false },
		Sight:    func(context.Context) control.Sight { return w.sight },
		History:  &Reader{archive.New(&w.faults, Folder)},
		Output: func(_ context.Context, _ string, _ control.LogQuery, each func(control.HookOutput) error) error {
			return each(control.HookOutput{Data: []byte("hello")})
		},
	})
}

// all shows everything.
type all struct{}

func (all) Sees(string, string) bool { return true }
func (all) SeesApp(string) bool      { return true }
func (all) SeesFleet() bool          { return true }
func (all) SeesAll() bool            { return true }

// one shows one application.
type one struct {
	all
	app string
}

func (o one) Sees(app, _ string) bool { return app == o.app }
func (o one) SeesApp(app string) bool { return app == o.app }
func (one) SeesAll() bool             { return false }

// deploy has n more deployments begin and end, of both applications in turn.
func (w *world) deploy(n int) (ids []string) {
	w.Helper()
	w.sight = all{}
	c, _ := deploy.Builtin("all-at-once")
	for range n {
		w.n++
		app, host := []string{"www", "api"}[w.n%2], fmt.Sprint("h", w.n%2)
		id := fmt.Sprintf("01M8D%08d", w.n)
		w.apply(deploy.DeploymentCreated{
			ID: id, App: app, Group: "prod", Revision: "sha256:1", RevName: "v1", Config: c, Redeploy: true,
			Waves:   []deploy.Wave{{Name: "all", Hosts: []string{host}}},
			Request: deploy.Request{ID: id, Actor: "ann", Reason: fmt.Sprint("number ", w.n)},
		})
		w.apply(deploy.RequestMade{Deployment: id, Verb: deploy.VerbAbortLeave, Request: deploy.Request{Reason: "drill"}})
		if d := w.s.Deployments[id]; !d.Status.Terminal() {
			w.apply(deploy.DeploymentEnded{Deployment: id, Status: deploy.DeploymentStatusStopped})
		}
		ids = append(ids, id)
	}
	return ids
}

// shown is a deployment as a replica shows it, without when it was asked.
func (w *world) shown(s *control.Service, id string, tasks bool) *controlv1.GetDeploymentResponse {
	w.Helper()
	out, err := s.GetDeployment(w.Context(), &controlv1.GetDeploymentRequest{Id: id, AllTasks: tasks})
	if err != nil {
		w.Fatalf("%s: %v", id, err)
	}
	out = proto.Clone(out).(*controlv1.GetDeploymentResponse)
	out.Deployment.Index = 0
	for _, t := range out.Deployment.Tasks {
		t.Permit, t.Health = "", ""
	}
	return out
}

// move moves what can be.
func (w *world) move() {
	w.Helper()
	for more := true; more; {
		var err error
		if more, err = w.m.step(w.Context()); err != nil {
			w.Fatal(err)
		}
	}
}

// drop has the state forget the outlines of what was moved.
func (w *world) drop() (n int) {
	for id, d := range w.s.Deployments {
		if d.Pack != "" {
			delete(w.s.Deployments, id)
			w.s.Dropped++
			n++
		}
	}
	w.s.Rebuild()
	return n
}

// TestHistoryIsReadAsBefore: what was moved is shown as before, by its outline and
// without, to who may see it.
func TestHistoryIsReadAsBefore(t *testing.T) {
	w := newWorld(t)
	ids := w.deploy(300)
	before := map[string]*controlv1.GetDeploymentResponse{}
	for _, id := range ids {
		before[id] = w.shown(w.service(), id, true)
	}
	list, err := w.service().ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{App: "www", Limit: 1000})
	if err != nil || len(list.Deployments) != 150 {
		t.Fatalf("%d deployments are listed, %v", len(list.Deployments), err)
	}
	w.move()
	if len(w.s.Packs) != 2 || w.s.Packs[0].Items != packItems {
		t.Errorf("300 deployments are in %v", w.s.Packs)
	}
	for _, dropped := range []bool{false, true} {
		if dropped && w.drop() != 298 {
			t.Fatalf("the state has %d deployments left", len(w.s.Deployments))
		}
		s := w.service()
		for _, id := range ids {
			if got := w.shown(s, id, true); !proto.Equal(got, before[id]) {
				t.Errorf("dropped %t: %s was\n%v\nand is\n%v", dropped, id, before[id], got)
			}
			if got := w.shown(s, id, false); len(got.Deployment.Tasks) != 0 || len(got.Records) != len(before[id].Records) {
				t.Errorf("dropped %t: %s shows tasks that nobody looks for: %v", dropped, id, got.Deployment.Tasks)
			}
		}
		after, err := s.ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{App: "www", Limit: 1000})
		if err != nil || after.Incomplete != "" || len(after.Deployments) != len(list.Deployments) {
			t.Fatalf("dropped %t: %d are listed, %v %s", dropped, len(after.Deployments), err, after.Incomplete)
		}
		for i, d := range after.Deployments {
			if was := list.Deployments[i]; d.Id != was.Id || d.Reason != was.Reason || d.Status != was.Status {
				t.Errorf("dropped %t: line %d was %v, is %v", dropped, i, was, d)
			}
		}
	}
	if some, err := w.service().ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{Limit: 7}); err != nil ||
		len(some.Deployments) != 7 {
		t.Errorf("%d of 7 deployments, %v", len(some.Deployments), err)
	}
	w.sight = one{app: "www"}
	s := w.service()
	for _, id := range ids[:10] {
		_, err := s.GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{Id: id})
		found, err2 := s.Deployment(t.Context(), id, "", "")
		if mine := before[id].Deployment.App == "www"; (err == nil) != mine || (err2 == nil) != mine ||
			mine && (found.ID != id || found.App != "www") {
			t.Errorf("who may see www asks for %s of %s: %v, %v", id, before[id].Deployment.App, err, err2)
		}
	}
	if out, err := s.ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{Limit: 1000}); err != nil ||
		len(out.Deployments) != 150 {
		t.Errorf("who may see www sees %d deployments, %v", len(out.Deployments), err)
	}
}

// TestBeginningsOfIds: one that is only one deployment's finds it, others are refused.
func TestBeginningsOfIds(t *testing.T) {
	w := newWorld(t)
	ids := w.deploy(40)
	w.move()
	w.drop()
	s := w.service()
	for _, x := range []struct{ id, want string }{
		{strings.ToLower(ids[4]), ids[4]}, {ids[0][:12], ""}, {"01M8D00099", ""}, {"01M8", ""}, {ids[11][:12], ""},
	} {
		out, err := s.GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{Id: x.id})
		if got := out.GetDeployment().GetId(); got != x.want || (err == nil) != (x.want != "") {
			t.Errorf("%s finds %q, %v", x.id, got, err)
		}
	}
}

// TestInterruptedMoves: whatever fails between the write and the fact, nothing is let go
// of, and the next attempt moves all of it once.
func TestInterruptedMoves(t *testing.T) {
	broken := errors.New("broken")
	for name, set := range map[string]func(*world, error){
		"the write": func(w *world, err error) { w.faults.put.set(err) },
		"the read":  func(w *world, err error) { w.faults.open.set(err) },
		"the fact":  func(w *world, err error) { w.refuse = err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ids := w.deploy(20)
			before := w.shown(w.service(), ids[3], true)
			set(w, broken)
			for range 3 {
				if moved, err := w.m.step(t.Context()); moved || !errors.Is(err, broken) {
					t.Fatalf("it moved %t: %v", moved, err)
				}
			}
			for _, id := range ids {
				if d := w.s.Deployments[id]; d == nil || d.Pruned {
					t.Fatalf("%s was let go of", id)
				}
			}
			set(w, nil)
			w.move()
			if len(w.s.Packs) != 1 || w.s.Packs[0].Items != 18 {
				t.Errorf("it knows the packs %v", w.s.Packs)
			}
			w.drop()
			if got := w.shown(w.service(), ids[3], true); !proto.Equal(got, before) {
				t.Errorf("%s was\n%v\nand is\n%v", ids[3], before, got)
			}
		})
	}
}

// TestWhatCannotBeRead: an object that is gone or changed, and a store that is dead, are
// errors that say so, and never a deployment that does not exist or a shorter list.
func TestWhatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	ids := w.deploy(20)
	w.move()
	path := filepath.Join(w.dir, Folder, strings.TrimPrefix(string(w.s.Packs[0].Object), "sha256:"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(whole)
	changed[len(changed)/2] ^= 1
	write := func(data []byte) func() {
		return func() {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, dropped := range []bool{false, true} {
		if dropped {
			w.drop()
		}
		for name, x := range map[string]struct {
			do         func()
			kind, text string
		}{
			"changed": {write(changed), "internal", "lost or changed an object"},
			"gone":    {func() { _ = os.Remove(path) }, "internal", "lost or changed an object"},
			"dead":    {func() { w.faults.open.set(errors.New("no route to host")) }, "unavailable", "does not answer"},
		} {
			x.do()
			s := w.service()
			_, err := s.GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{Id: ids[2]})
			var kind interface{ Kind() string }
			if !errors.As(err, &kind) || kind.Kind() != x.kind || !strings.Contains(err.Error(), x.text) {
				t.Errorf("%s, dropped %t: %v", name, dropped, err)
			}
			out, err := s.ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{})
			if err != nil || (out.Incomplete != "") != dropped {
				t.Errorf("%s, dropped %t: the list has %d, %q, %v", name, dropped, len(out.Deployments), out.Incomplete, err)
			}
			w.faults.open.set(nil)
			write(whole)()
		}
	}
	if got := w.shown(w.service(), ids[2], true); got.Deployment.Id != ids[2] {
		t.Errorf("it does not come back: %v", got)
	}
}

// TestFoldedPacks: an index of a thousand packs is folded, and again, and what the oldest
// holds is found through both folds.
func TestFoldedPacks(t *testing.T) {
	w := newWorld(t)
	oldest := w.deploy(4)[0]
	before := w.shown(w.service(), oldest, true)
	w.move()
	var folds []deploy.Digest
	for range 2 {
		for i := len(w.s.Packs); i < 1024; i++ { // of which none has what is asked for
			w.s.Packs = append(w.s.Packs, deploy.Pack{Object: deploy.Digest(fmt.Sprint("none", i)), From: "0", To: "0"})
		}
		w.move()
		folds = append(folds, w.s.OlderPacks)
		if len(w.s.Packs) != 512 {
			t.Fatalf("%d packs are left, behind %q", len(w.s.Packs), w.s.OlderPacks)
		}
	}
	if folds[0] == "" || folds[0] == folds[1] {
		t.Fatalf("the folds are %q", folds)
	}
	w.drop()
	if got := w.shown(w.service(), oldest, true); !proto.Equal(got, before) {
		t.Errorf("%s was\n%v\nand is\n%v", oldest, before, got)
	}
	if out, err := w.service().ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{Limit: 3}); err != nil ||
		out.Incomplete == "" { // the packs that are none are in between
		t.Errorf("a list that cannot be whole: %v, %v", out, err)
	}
	path := filepath.Join(w.dir, Folder, strings.TrimPrefix(string(folds[0]), "sha256:"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := w.service().GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{Id: oldest})
	if !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("a fold is gone: %v", err)
	}
}

// printed is who asks for what hooks printed.
type printed struct {
	grpc.ServerStream
	ctx   context.Context
	hosts []string
}

func (p *printed) Context() context.Context { return p.ctx }
func (p *printed) Send(r *controlv1.LogsResponse) error {
	p.hosts = append(p.hosts, r.Host)
	return nil
}

// watched is who watches.
type watched struct {
	grpc.ServerStream
	ctx context.Context
	got []*controlv1.WatchDeploymentResponse
}

func (w *watched) Context() context.Context { return w.ctx }
func (w *watched) Send(r *controlv1.WatchDeploymentResponse) error {
	w.got = append(w.got, r)
	return nil
}

// TestStreamsOfMovedOnes: who watches gets all records behind an index and the end, who
// reads output is led to its hosts.
func TestStreamsOfMovedOnes(t *testing.T) {
	w := newWorld(t)
	id := w.deploy(4)[1]
	before := w.shown(w.service(), id, true)
	w.move()
	for _, dropped := range []bool{false, true} {
		if dropped {
			w.drop()
		}
		all := &watched{ctx: t.Context()}
		if err := w.service().WatchDeployment(&controlv1.WatchDeploymentRequest{Id: id}, all); err != nil ||
			len(all.got) != 1 || len(all.got[0].Records) != len(before.Records) || !all.got[0].Deployment.Terminal {
			t.Errorf("dropped %t: who watches gets %v, %v", dropped, all.got, err)
		}
		rest := &watched{ctx: t.Context()}
		after := before.Records[0].Index
		if err := w.service().WatchDeployment(&controlv1.WatchDeploymentRequest{Id: id, After: after}, rest); err != nil ||
			len(rest.got) != 1 || rest.got[0].Records[0].Index <= after {
			t.Errorf("dropped %t: who goes on watching gets %v, %v", dropped, rest.got, err)
		}
		out := &printed{ctx: t.Context()}
		if err := w.service().Logs(&controlv1.LogsRequest{Deployment: id}, out); err != nil || len(out.hosts) != 1 ||
			out.hosts[0] != before.Deployment.Tasks[0].Name {
			t.Errorf("dropped %t: output of %v, %v", dropped, out.hosts, err)
		}
	}
}

// TestWithoutAStore: what was dropped is not there, and lists and errors say that it may
// have been.
func TestWithoutAStore(t *testing.T) {
	w := newWorld(t)
	id := w.deploy(4)[0]
	delete(w.s.Deployments, id)
	w.s.Dropped++
	w.s.Rebuild()
	_, err := w.service().GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{Id: id})
	if err == nil || !strings.Contains(err.Error(), "keep no longer") {
		t.Errorf("%v", err)
	}
	out, err := w.service().ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{})
	if err != nil || len(out.Deployments) != 3 || !strings.Contains(out.Incomplete, "kept no longer") {
		t.Errorf("%d deployments, %q, %v", len(out.Deployments), out.Incomplete, err)
	}
}

// TestWhenItMoves: nothing until there are enough, or one has ended long enough ago.
func TestWhenItMoves(t *testing.T) {
	w := newWorld(t)
	w.m.After = time.Hour
	w.deploy(packEnough)
	if moved, err := w.m.step(t.Context()); moved || err != nil {
		t.Fatalf("62 young ones: moved %t, %v", moved, err)
	}
	w.deploy(2)
	if moved, err := w.m.step(t.Context()); !moved || err != nil || w.s.Packs[0].Items != packEnough {
		t.Fatalf("64 young ones: moved %t, %v", moved, err)
	}
	w.deploy(1)
	w.s.Now = w.s.Now.Add(2 * time.Hour)
	if moved, err := w.m.step(t.Context()); !moved || err != nil || w.s.Packs[1].Items != 1 {
		t.Fatalf("an old one: moved %t, %v", moved, err)
	}
}

// TestADeadStoreIsTold, and tried again.
func TestADeadStoreIsTold(t *testing.T) {
	w := newWorld(t)
	w.deploy(5)
	w.faults.put.set(errors.New("no route to host"))
	told := make(chan error)
	w.m.Told, w.m.Look = func(err error) { told <- err }, time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.m.Run(ctx) }()
	for range 2 {
		if err := <-told; err == nil || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("it says %v", err)
		}
	}
	w.faults.put.set(nil) // it pauses, and has told
	for err := range told {
		if err == nil {
			break
		}
	}
	cancel()
	<-done
}
