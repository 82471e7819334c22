package journal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/groundswell/groundswell/agent/journal"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/internal/durable"
)

// FuzzJournal opens a journal of any bytes, raw and as intact records (a line
// each). Whatever opens answers, takes an assignment above what it has, and
// says the same when it is opened again.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("torn"), false)
	f.Add([]byte(`{"app":"www","record":{"Base":{"Running":"a","Generation":3,"Result":1}}}`), true)
	f.Add([]byte(`{"app":"www","record":{"Assigned":{"Generation":4,"App":"www","Goal":"b","Permit":1}}}`+"\n"+
		`{"app":"www","record":{"Begin":{"Kind":1,"Generation":4,"Number":1,"Revision":"b"}}}`+"\n"+
		`{"app":"www","record":{"End":{"Outcome":3}}}`), true)
	f.Add([]byte(`{"app":"www","record":{"End":{"Outcome":1}}}`+"\n"+`{"app":"www","counter":9,"lastGood":"x"}`+"\n"+`{"app":"www","forget":true}`), true)
	f.Fuzz(func(t *testing.T, data []byte, framed bool) {
		dir := t.TempDir()
		if err := fill(filepath.Join(dir, "journal"), data, framed); err != nil {
			t.Skip()
		}
		before, ok := states(t, dir, true)
		if !ok {
			return
		}
		after, ok := states(t, dir, false)
		if !ok {
			t.Fatal("it opened once and not again")
		}
		for app, s := range before {
			if s.Kind != after[app].Kind || s.Revision != after[app].Revision {
				t.Fatalf("%q was to do %+v, and opened again %+v", app, s, after[app])
			}
		}
	})
}

func fill(path string, data []byte, framed bool) error {
	if !framed {
		return os.WriteFile(path, data, 0o600)
	}
	log, err := durable.OpenLog(path, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	if err := log.Append(bytes.Split(data, []byte("\n"))...); err != nil {
		return err
	}
	return log.Close()
}

// states is the next step of every target; with assign, after an assignment
// that is above all.
func states(t *testing.T, dir string, assign bool) (map[string]task.Step, bool) {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		return nil, false // refused, and not changed
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	all := map[string]task.Step{}
	for _, app := range j.Apps() {
		if assign && app != "" {
			st := j.Target(app).State()
			next := max(st.Base.Generation, st.Assignment.Generation) + 1
			// A pending generation may be higher still: then it is refused.
			_ = j.Assign(task.Assignment{Generation: next, App: app, Goal: "new", Permit: task.PermitNormal})
		}
		all[app] = j.Target(app).State().Next
	}
	return all, true
}
