package state

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

var golden = flag.Bool("golden", false, "write the golden log of the newest level anew, before it is released")

// goldenLog is the log of one scenario, as raft would hold it.
type goldenLog struct {
	Name    string   `json:"name"`
	Entries [][]byte `json:"entries"`
}

// TestGoldenLogs applies the log of every level of rules and compares the state
// that it ends in, in words. Once a level is released neither file changes: an
// upgraded replica must end in that state too. The log holds every scenario of
// the deploy package as it was when the level was closed.
func TestGoldenLogs(t *testing.T) {
	newest := fmt.Sprintf("testdata/rules%d", deploy.RulesKnown)
	if *golden {
		writeGolden(t, newest)
	}
	for level := 1; level <= deploy.RulesKnown; level++ {
		path := fmt.Sprintf("testdata/rules%d", level)
		want, err := os.ReadFile(path + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		got := &strings.Builder{}
		kinds := map[string]bool{}
		for _, g := range readGolden(t, path+".log.gz") {
			s := New(deploy.RulesKnown)
			s.Report = func(err error) { t.Errorf("%s: %v", g.Name, err) }
			for i, b := range g.Entries {
				e, err := Decode(b)
				if err != nil {
					t.Fatalf("%s, entry %d: %v", g.Name, i+1, err)
				}
				for _, ev := range e.Events {
					kinds[fmt.Sprintf("%T", ev)] = true
				}
				s.Apply(&raft.Log{Index: uint64(i + 1), Data: b})
			}
			s.View(func(st *deploy.State) { describe(got, g.Name, st) })
		}
		if got.String() != string(want) {
			t.Errorf("the log of level %d ends in another state:\n%s", level,
				firstDifference(string(want), got.String()))
		}
		if len(kinds) < 35 {
			t.Errorf("the log of level %d has %d kinds of facts: %v", level, len(kinds),
				slices.Sorted(maps.Keys(kinds)))
		}
	}
}

func readGolden(t testing.TB, path string) (out []goldenLog) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// writeGolden records every scenario.
func writeGolden(t *testing.T, path string) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var all []goldenLog
	words := &strings.Builder{}
	for _, f := range files {
		s := sim.NewSession(1)
		g := goldenLog{Name: strings.TrimSuffix(filepath.Base(f), ".txt")}
		s.World.Record = func(index uint64, e deploy.Entry) {
			for level := e.Rules; index == 1 && level > 1; level-- { // by which the scenario is played
				e.Events = append([]deploy.Event{deploy.RulesRaised{Level: level}}, e.Events...)
				e.Rules = 1
			}
			b, err := Encode(Entry{Entry: e})
			if err != nil {
				t.Fatal(err)
			}
			g.Entries = append(g.Entries, b)
		}
		datadriven.RunTest(t, f, func(_ *testing.T, d *datadriven.TestData) string {
			args := sim.Args{}
			for _, a := range d.CmdArgs {
				args[a.Key] = strings.Join(a.Vals, ",")
				if len(a.Vals) == 0 {
					args[a.Key] = "true"
				}
			}
			if d.Input != "" {
				args["waves"] = d.Input
			}
			s.Do(d.Cmd, args)
			return d.Expected
		})
		all = append(all, g)
		describe(words, g.Name, s.World.State)
	}
	var log bytes.Buffer
	z := gzip.NewWriter(&log)
	if err := json.NewEncoder(z).Encode(all); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{path + ".log.gz": log.Bytes(), path + ".txt": []byte(words.String())} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// describe writes down, in words that no renamed field changes, what a state
// means: what every target runs and should run, and how every deployment stands.
func describe(w *strings.Builder, name string, s *deploy.State) {
	fmt.Fprintf(w, "== %s: rules %d, time %d, %d freezes\n", name, s.Rules, s.Now, len(s.Freezes))
	for _, key := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[key]
		fmt.Fprintf(w, "group %s select %q then %q serving %+v\n", key, g.Selector, g.NextSelector, g.Usage(""))
		for _, line := range g.History {
			fmt.Fprintf(w, "  history %s %s %s\n", line.Deployment, line.Revision, line.Wave)
		}
		for _, d := range slices.Sorted(maps.Keys(g.Bad)) {
			fmt.Fprintf(w, "  bad %s by %s\n", d, g.Bad[d])
		}
		for _, d := range slices.Sorted(maps.Keys(g.Grades)) {
			fmt.Fprintf(w, "  grade %s %s\n", d, g.Grades[d])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
		h := s.Hosts[id]
		for _, app := range slices.Sorted(maps.Keys(h.Targets)) {
			t := h.Targets[app]
			wants := s.Wants(t)
			fmt.Fprintf(w, "  target %s gen %d open %t %s %s runs %s wants %s back to %s drift %q away %t kept out %t\n",
				id, t.Gen, t.Open, t.Permit, t.Health, t.Running, wants.Revision, s.LastGood(t), t.Drift, t.Away, t.Quarantined)
		}
	}
	for _, d := range slices.SortedFunc(maps.Values(s.Deployments),
		func(a, b *deploy.Deployment) int { return int(a.Seq) - int(b.Seq) }) {
		fmt.Fprintf(w, "  %s %s %s (%s) failures %d suspect %q\n", d.ID, d.RevName, d.Status, d.Cause, d.Failures,
			d.Suspect)
		for i := range d.Waves {
			p := d.Progress(i)
			fmt.Fprintf(w, "    %s %s %+v\n", d.Waves[i].Name, d.Waves[i].Status, p)
		}
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(b), len(a))
}
