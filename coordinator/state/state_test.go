package state

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/klauspost/compress/zstd"

	"github.com/groundswell/groundswell/deploy"
)

// every returns one filled value of each kind of fact.
func every() []deploy.Event {
	kinds := []deploy.Event{
		deploy.GroupDefined{},
		deploy.HostEnrolled{},
		deploy.HostLeft{},
		deploy.TargetsJoined{},
		deploy.TargetsLeft{},
		deploy.RevisionRegistered{},
		deploy.DeploymentCreated{},
		deploy.RequestMade{},
		deploy.DeploymentStarted{},
		deploy.WaveStarted{},
		deploy.PermitsGranted{},
		deploy.RollbackStarted{},
		deploy.TasksEnded{},
		deploy.HostsUnreachable{},
		deploy.GateJudged{},
		deploy.BakeStarted{},
		deploy.WaveSealed{},
		deploy.WaveSkipped{},
		deploy.DeploymentPaused{},
		deploy.DeploymentEnded{},
		deploy.TargetsReported{},
		deploy.TrafficSet{},
		deploy.GroupDeleted{},
		deploy.FreezeSet{},
		deploy.FreezeLifted{},
		deploy.FreezesEnded{},
		deploy.HoldsChanged{},
		deploy.TargetMoved{},
		deploy.TakenOver{},
		deploy.WaveReverted{},
		deploy.GateObserved{},
		deploy.HostsQuarantined{},
		deploy.HostsReleased{},
		deploy.HostDrainSet{},
		deploy.HostDrained{},
		deploy.RevisionSuspected{},
		deploy.RulesRaised{},
		deploy.RevertExtended{},
		deploy.RevisionProven{},
		deploy.StagingRetried{},
		deploy.TasksReopened{},
		deploy.GatesAnswered{},
		deploy.RevisionsPruned{},
		deploy.HistoryMoved{},
		deploy.HistoryFolded{},
	}
	for i, k := range kinds {
		v := reflect.New(reflect.TypeOf(k)).Elem()
		n := 0
		fill(v, &n)
		kinds[i] = v.Interface().(deploy.Event)
	}
	return kinds
}

// soft fields are set by Apply and never travel in a fact.
var soft = map[string][]string{
	"Wave": {
		"Status", "Budget", "StartedAt", "EvidenceFrom", "EvidenceSince", "Planned", "BakeUntil", "EndedAt", "HeldAt",
		"Holds",
		"LeftTo", "Released",
		"Extra", "BakeSince", "Rehearsed", "Watch",
	},
}

// fill sets every field to a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("s", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(fmt.Sprint("k", *n)), reflect.ValueOf(fmt.Sprint("v", *n)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if !slices.Contains(soft[v.Type().Name()], v.Type().Field(i).Name) {
				fill(v.Field(i), n)
			}
		}
	default:
		panic(v.Kind().String())
	}
}

func TestEveryFactSurvivesTheLog(t *testing.T) {
	for _, e := range every() {
		b, err := Encode(Entry{Entry: deploy.Entry{At: 5, Wall: 7, Events: []deploy.Event{e}}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(back.Events) != 1 || back.At != 5 || back.Wall != 7 {
			t.Fatalf("%T came back as %+v", e, back)
		}
		if diff := cmp.Diff(e, back.Events[0]); diff != "" {
			t.Errorf("%T lost in the log:\n%s", e, diff)
		}
	}
}

// TestEveryKindIsCovered compares the list above with the source of deploy.
func TestEveryKindIsCovered(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../deploy/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range every() {
		have[reflect.TypeOf(e).Name()] = true
	}
	n := 0
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "event" {
			continue
		}
		n++
		if name := fn.Recv.List[0].Type.(*ast.Ident).Name; !have[name] {
			t.Errorf("fact %s is not tested", name)
		}
	}
	if n != len(have) {
		t.Errorf("%d kinds in deploy, %d tested", n, len(have))
	}
}

func apply(t *testing.T, s *Store, index uint64, e Entry) Applied {
	t.Helper()
	e.Rules = 1
	b, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return s.Apply(&raft.Log{Index: index, Data: b}).(Applied)
}

func facts(events ...deploy.Event) Entry {
	return Entry{Entry: deploy.Entry{Rules: 1, At: 1, Events: events}}
}

func history(t *testing.T, s *Store) {
	t.Helper()
	c, _ := deploy.Builtin("all-at-once")
	for i, e := range []Entry{
		facts(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}),
		facts(deploy.HostEnrolled{Host: "h", Name: "h", Zone: "z"},
			deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h"}}),
		facts(deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"}),
		facts(deploy.DeploymentCreated{
			Request: deploy.Request{ID: "r"}, ID: "d", App: "www", Group: "prod", Revision: "sha256:1", RevName: "v1",
			Config: c,
			Waves:  []deploy.Wave{{Name: "all", Hosts: []string{"h"}}},
		}),
		facts(deploy.DeploymentStarted{Deployment: "d"}, deploy.WaveStarted{Deployment: "d"}),
		{Cluster: []ClusterEvent{
			ClusterCreated{ID: "c"},
			TokenCreated{ID: "t", Role: "agent", Hash: HashToken("x"), Life: 1 << 50, Uses: 1},
		}},
	} {
		if a := apply(t, s, uint64(i+1), e); a.Err() != nil {
			t.Fatalf("entry %d: %v", i+1, a.Err())
		}
	}
}

// TestSnapshotIsTheWholeState: in either format.
func TestSnapshotIsTheWholeState(t *testing.T) {
	for level := 1; level <= deploy.RulesKnown; level++ {
		snapshotIsTheWholeState(t, level)
	}
}

func snapshotIsTheWholeState(t *testing.T, level int) {
	s := New(deploy.RulesKnown)
	s.state.Rules = level
	history(t, s)
	before, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again := New(deploy.RulesKnown)
	if err := again.Restore(io.NopCloser(bytes.NewReader(before))); err != nil {
		t.Fatal(err)
	}
	if after, err := again.Encode(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("restored state differs: %v\n%s\n%s", err, before, after)
	}
	next := facts(deploy.TargetsReported{Items: []deploy.Report{{
		Host: "h", App: "www", Counter: 1,
		Staged: []deploy.Digest{"sha256:1"},
	}}})
	apply(t, s, 7, next)
	apply(t, again, 7, next)
	a, _ := s.Encode()
	b, _ := again.Encode()
	if !bytes.Equal(a, b) {
		t.Error("S9: a restored replica went another way")
	}
}

func TestAnEntryAppliesOnce(t *testing.T) {
	s := New(deploy.RulesKnown)
	history(t, s)
	before, _ := s.Encode()
	apply(t, s, 4, facts(deploy.HostLeft{Host: "h", Force: true}))
	if after, _ := s.Encode(); !bytes.Equal(before, after) {
		t.Error("an old index changed the state")
	}
}

func TestBadSnapshotChangesNothing(t *testing.T) {
	s := New(deploy.RulesKnown)
	history(t, s)
	before, _ := s.Encode()
	texts := []string{
		"", "{", `{"format":3}`, "null", `{"format":1,"state":null}`, `{"format":2,"state":{"rules":9},"cluster":{}}`,
		`{"format":3,"rules":9}`, `{"format":4,"rules":1}`,
	}
	inParts := New(deploy.RulesKnown)
	inParts.state.Rules = deploy.RulesKnown
	history(t, inParts)
	good := encode(t, inParts)
	for at := range good {
		texts = append(texts, string(good[:at]))
		bad, back := bytes.Clone(good), New(deploy.RulesKnown)
		bad[at] ^= 1
		err := back.Restore(io.NopCloser(bytes.NewReader(bad)))
		if err == nil && !bytes.Equal(encode(t, back), good) { // a bit of padding may be another
			t.Errorf("a snapshot with byte %d changed was accepted", at)
		}
	}
	var body bytes.Buffer
	z, _ := zstd.NewWriter(&body)
	fmt.Fprintf(z, `{"state":{"rules":%d},"cluster":{}}{"parts":2}`, deploy.RulesKnown)
	_ = z.Close()
	texts = append(texts, fmt.Sprintf("{\"format\":3,\"rules\":%d}\n%s", deploy.RulesKnown, body.Bytes()))
	for _, text := range texts {
		err := s.Restore(io.NopCloser(bytes.NewReader([]byte(text))))
		if err == nil {
			t.Errorf("snapshot %q was accepted", text)
		}
	}
	if after, _ := s.Encode(); !bytes.Equal(before, after) {
		t.Error("a refused snapshot changed the state")
	}
}

// FuzzDecode: bytes of any origin are refused or applied, never a panic of
// Decode, Apply or the encoder.
func FuzzDecode(f *testing.F) {
	for _, e := range every() {
		b, _ := Encode(facts(e))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		s := New(deploy.RulesKnown)
		history(t, s)
		apply(t, s, 100, e)
		if _, err := s.Encode(); err != nil {
			t.Fatal(err)
		}
		s.View(func(st *deploy.State) {
			if err := deploy.Check(st); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// TestEveryFactIsDescribed: traces and simulations have a line for every fact.
func TestEveryFactIsDescribed(t *testing.T) {
	for _, e := range every() {
		if text := deploy.Describe(e); strings.HasPrefix(text, "deploy.") {
			t.Errorf("%T has no description", e)
		}
	}
}
