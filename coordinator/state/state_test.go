package state

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

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
		deploy.GroupDeleted{},
		deploy.FreezeSet{},
		deploy.FreezeLifted{},
		deploy.HoldsChanged{},
		deploy.TargetMoved{},
		deploy.TakenOver{},
		deploy.WaveReverted{},
		deploy.GateObserved{},
		deploy.HostsQuarantined{},
		deploy.HostsReleased{},
		deploy.RevisionSuspected{},
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
		"Status", "Budget", "StartedAt", "StartedWall", "BakeUntil", "EndedAt", "HeldAt", "Holds", "Released",
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
	b, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return s.Apply(&raft.Log{Index: index, Data: b}).(Applied)
}

func facts(events ...deploy.Event) Entry { return Entry{Entry: deploy.Entry{At: 1, Events: events}} }

func history(t *testing.T, s *Store) {
	t.Helper()
	c, _ := deploy.Builtin("all-at-once")
	for i, e := range []Entry{
		facts(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}),
		facts(deploy.HostEnrolled{Host: "h", Name: "h", Zone: "z"}, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h"}}),
		facts(deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"}),
		facts(deploy.DeploymentCreated{
			Request: deploy.Request{ID: "r"}, ID: "d", App: "www", Group: "prod", Revision: "sha256:1", RevName: "v1", Config: c,
			Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h"}}},
		}),
		facts(deploy.DeploymentStarted{Deployment: "d"}, deploy.WaveStarted{Deployment: "d"}),
		{Cluster: []ClusterEvent{ClusterCreated{ID: "c"}, TokenCreated{ID: "t", Role: "agent", Hash: HashToken("x"), Life: 1 << 50, Uses: 1}}},
	} {
		if a := apply(t, s, uint64(i+1), e); a.Err() != nil {
			t.Fatalf("entry %d: %v", i+1, a.Err())
		}
	}
}

func TestSnapshotIsTheWholeState(t *testing.T) {
	s := New()
	history(t, s)
	before, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again := New()
	if err := again.Restore(io.NopCloser(bytes.NewReader(before))); err != nil {
		t.Fatal(err)
	}
	if after, err := again.Encode(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("restored state differs: %v\n%s\n%s", err, before, after)
	}
	next := facts(deploy.TargetsReported{Items: []deploy.Report{{Host: "h", App: "www", Counter: 1, Staged: []deploy.Digest{"sha256:1"}}}})
	apply(t, s, 7, next)
	apply(t, again, 7, next)
	a, _ := s.Encode()
	b, _ := again.Encode()
	if !bytes.Equal(a, b) {
		t.Error("S9: a restored replica went another way")
	}
}

func TestAnEntryAppliesOnce(t *testing.T) {
	s := New()
	history(t, s)
	before, _ := s.Encode()
	apply(t, s, 4, facts(deploy.HostLeft{Host: "h", Force: true}))
	if after, _ := s.Encode(); !bytes.Equal(before, after) {
		t.Error("an old index changed the state")
	}
}

func TestBadSnapshotChangesNothing(t *testing.T) {
	s := New()
	history(t, s)
	before, _ := s.Encode()
	for _, text := range []string{"", "{", `{"format":2}`, "null", `{"format":1,"state":null}`} {
		if err := s.Restore(io.NopCloser(bytes.NewReader([]byte(text)))); err == nil {
			t.Errorf("snapshot %q was accepted", text)
		}
	}
	if after, _ := s.Encode(); !bytes.Equal(before, after) {
		t.Error("a refused snapshot changed the state")
	}
}

// read returns the log entries that a golden file holds.
func read(t *testing.T, path string) []Entry {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var raw [][]byte
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	var out []Entry
	for i, r := range raw {
		e, err := Decode(r)
		if err != nil {
			t.Fatalf("%s, entry %d: %v", path, i, err)
		}
		out = append(out, e)
	}
	return out
}

// TestVersion1 loads what version 1 wrote; its files never change.
func TestVersion1(t *testing.T) {
	var seen []string
	for _, entry := range read(t, "testdata/v1.log.json") {
		for _, e := range entry.Events {
			switch e := e.(type) {
			case deploy.GateJudged:
				seen = append(seen, "judged "+string(e.Verdict))
			case deploy.GroupDefined:
				seen = append(seen, fmt.Sprintf("wave %s, gate %s", e.Config.OnFailure.Wave.Scope, e.Config.OnFailure.Gate.Scope))
			}
		}
	}
	if want := []string{"wave all, gate all", "judged pass"}; !slices.Equal(seen, want) {
		t.Errorf("version 1 reads as %q, want %q", seen, want)
	}
	old, _ := encodeEvent(deploy.GateJudged{Verdict: deploy.VerdictFail})
	old.GetGateJudged().Verdict = "" // as version 1 wrote it
	if e, err := decodeEvent(old); err != nil || e.(deploy.GateJudged).Verdict != deploy.VerdictFail {
		t.Errorf("a failed gate of version 1 reads as %+v, %v", e, err)
	}
	f, err := os.Open("testdata/v1.snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	if err := s.Restore(f); err != nil {
		t.Fatalf("snapshot of version 1: %v", err)
	}
	s.View(func(st *deploy.State) {
		if err := deploy.Check(st); err != nil || len(st.Open()) != 1 {
			t.Errorf("restored: %v, %d open deployments", err, len(st.Open()))
		}
	})
}

// TestVersion2 reads one filled fact of each kind as version 2 wrote it. The
// bytes never change; the names in v2.facts.json follow renamed fields.
func TestVersion2(t *testing.T) {
	const log, facts = "testdata/v2.log.json", "testdata/v2.facts.json"
	if *rewrite {
		writeGolden(t, log, facts)
	}
	b, err := os.ReadFile(facts)
	if err != nil {
		t.Fatal(err)
	}
	var wants []json.RawMessage
	if err := json.Unmarshal(b, &wants); err != nil {
		t.Fatal(err)
	}
	entries := read(t, log)
	if len(entries) != len(wants) || len(entries) < 32 {
		t.Fatalf("%d entries, %d facts", len(entries), len(wants))
	}
	for i, entry := range entries {
		want := reflect.New(reflect.TypeOf(entry.Events[0]))
		if err := json.Unmarshal(wants[i], want.Interface()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Elem().Interface(), entry.Events[0]); diff != "" {
			t.Errorf("%T of version 2 reads otherwise now:\n%s", entry.Events[0], diff)
		}
	}
}

func writeGolden(t *testing.T, log, names string) {
	t.Helper()
	var entries [][]byte
	for _, e := range every() {
		b, err := Encode(facts(e))
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, b)
	}
	for path, v := range map[string]any{log: entries, names: every()} {
		b, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
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
		s := New()
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
