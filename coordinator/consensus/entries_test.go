package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// reads counts the entries that are read from the file.
type reads struct {
	logFile
	n int
}

func (r *reads) GetLog(index uint64, l *raft.Log) error {
	r.n++
	return r.logFile.GetLog(index, l)
}

// TestEntriesOfLate: what was written just now is not read from disk, and what was
// deleted, or replaced, is not there any more: by raft, and behind a gap.
func TestEntriesOfLate(t *testing.T) {
	d := newDisk(t.TempDir())
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	file := &reads{logFile: d.logFile}
	d.logFile = file
	store := func(term uint64, data string, from, to uint64) {
		t.Helper()
		var logs []*raft.Log
		for i := from; i <= to; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: term, Data: []byte(fmt.Sprint(data, i))})
		}
		if err := d.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	want := func(index, term uint64, data string, fromDisk int) {
		t.Helper()
		var l raft.Log
		before := file.n
		err := d.GetLog(index, &l)
		if data == "" {
			if !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("entry %d, which was deleted: %v, %+v", index, err, l)
			}
			return
		}
		text := fmt.Sprint(data, index)
		if err != nil || l.Index != index || l.Term != term || string(l.Data) != text || len(l.Extensions) != 0 {
			t.Errorf("entry %d: %v, %+v", index, err, l)
		}
		if file.n-before != fromDisk {
			t.Errorf("entry %d was read %d times from disk, not %d", index, file.n-before, fromDisk)
		}
	}
	store(1, "a", 1, entriesKept+10)
	want(entriesKept+10, 1, "a", 0)
	want(11, 1, "a", 0)
	want(10, 1, "a", 1)
	if err := d.DeleteRange(100, entriesKept+10); err != nil {
		t.Fatal(err)
	}
	want(101, 1, "", 0)
	store(2, "b", 100, 100)
	want(100, 2, "b", 0)
	want(99, 1, "a", 1)
	store(3, "c", 500, 501) // behind a snapshot
	want(501, 3, "c", 0)
	want(100, 2, "", 0)
	large := bytes.Repeat([]byte("x"), entryBytes+1)
	if err := d.StoreLog(&raft.Log{Index: 502, Term: 3, Data: large}); err != nil {
		t.Fatal(err)
	}
	before := file.n
	var l raft.Log
	if err := d.GetLog(502, &l); err != nil || !bytes.Equal(l.Data, large) || file.n != before+1 {
		t.Errorf("a large entry: %v, %d bytes, %d times from disk", err, len(l.Data), file.n-before)
	}
}
