package state

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
)

// TestEqualLogsGiveEqualStates applies every golden log three times: by two
// replicas, and by one that restores a snapshot in the middle. They end in the same
// bytes, and find the same windows.
func TestEqualLogsGiveEqualStates(t *testing.T) {
	compared := 0
	for level := 1; level <= deploy.RulesKnown; level++ {
		for _, g := range readGolden(t, fmt.Sprintf("testdata/rules%d.log.gz", level)) {
			a, b, late := New(deploy.RulesKnown), New(deploy.RulesKnown), New(deploy.RulesKnown)
			for i, data := range g.Entries {
				l := &raft.Log{Index: uint64(i + 1), Data: data}
				a.Apply(l)
				b.Apply(l)
				if i == len(g.Entries)/3 {
					if err := late.Restore(io.NopCloser(bytes.NewReader(encode(t, a)))); err != nil {
						t.Fatal(err)
					}
				} else if i > len(g.Entries)/3 {
					late.Apply(l)
				}
			}
			want := encode(t, a)
			for who, s := range map[string]*Store{"the other": b, "the one that restored": late} {
				if !bytes.Equal(encode(t, s), want) {
					t.Errorf("%s: %s ends in another state", g.Name, who)
				}
				_, _, otherwise := Differs(s.Windows(), [][]Window{a.Windows()}, 2)
				if otherwise {
					t.Errorf("%s: %s has other windows", g.Name, who)
				}
				for _, w := range s.Windows() {
					if slices.Contains(a.Windows(), w) {
						compared++
					}
				}
			}
			if n := len(g.Entries)/WindowEntries - 2; len(a.Windows()) < min(n, windowsKept) {
				t.Errorf("%s: %d windows of %d entries", g.Name, len(a.Windows()), len(g.Entries))
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d windows were compared", compared)
	}
}

func encode(t *testing.T, s *Store) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// full encodes the state itself, not an image of it.
func full(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := (whole{Format: formatJSON, State: s.state, Cluster: s.cluster}).write(&b, &frames{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sink is where raft has a snapshot written.
type sink struct{ bytes.Buffer }

func (*sink) Close() error  { return nil }
func (*sink) Cancel() error { return nil }
func (*sink) ID() string    { return "" }

// TestSnapshotsUnderLoad: what is written while entries are applied is, byte for byte,
// the state at the entry that it was taken at.
func TestSnapshotsUnderLoad(t *testing.T) {
	var writing sync.WaitGroup
	taken := 0
	for level := 1; level <= deploy.RulesKnown; level++ {
		for _, g := range readGolden(t, fmt.Sprintf("testdata/rules%d.log.gz", level)) {
			s := New(deploy.RulesKnown)
			for i, data := range g.Entries {
				s.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
				if i%17 != 16 {
					continue
				}
				want := full(t, s)
				shot, err := s.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				taken++
				writing.Go(func() {
					var got sink
					if err := shot.Persist(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
						t.Errorf("%s: the snapshot at entry %d is not the state: %v", g.Name, i+1, err)
					}
				})
			}
		}
	}
	writing.Wait()
	if taken < 300 {
		t.Errorf("only %d snapshots were taken", taken)
	}
}

// TestAChangedHostShows: a host that is something else in one replica's memory is
// in that replica's windows once an entry touches it.
func TestAChangedHostShows(t *testing.T) {
	a, b := New(deploy.RulesKnown), New(deploy.RulesKnown)
	index := uint64(0)
	both := func(e ...deploy.Event) {
		index++
		data, err := Encode(Entry{Entry: deploy.Entry{Rules: 1, Events: e}})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Store{a, b} {
			s.Apply(&raft.Log{Index: index, Data: data})
		}
	}
	enrol := func(version string) {
		both(deploy.HostEnrolled{Host: "h", Name: "h", Zone: "z", Version: version})
	}
	enrol("1")
	b.View(func(s *deploy.State) { s.Hosts["h"].Came = 7 })
	for index < WindowEntries {
		both()
	}
	for n := range 3 {
		for i := range WindowEntries {
			enrol(fmt.Sprint(n, " ", i))
		}
	}
	if len(a.Windows()) == 0 {
		t.Fatal("no window")
	}
	if n, out, _ := Differs(b.Windows(), [][]Window{a.Windows(), a.Windows()}, 3); !out || n == 0 {
		t.Errorf("a host that differs is not found: %v, %v", a.Windows(), b.Windows())
	}
}

func TestWhoDiffers(t *testing.T) {
	w := func(sums ...uint64) (out []Window) {
		for i, s := range sums {
			if s > 0 {
				out = append(out, Window{uint64(i + 1), s})
			}
		}
		return out
	}
	for _, x := range []struct {
		what            string
		mine            []Window
		others          [][]Window
		voters          int
		number          uint64
		outvoted, other bool
	}{
		{"all agree", w(1, 2), [][]Window{w(1, 2), w(1, 2)}, 3, 0, false, false},
		{"the others have another", w(1, 2), [][]Window{w(1, 3), w(1, 3)}, 3, 2, true, true},
		{"an old one that both remember", w(1, 2), [][]Window{w(7, 2), w(7, 0)}, 3, 1, true, true},
		{"one other is no majority", w(1, 2), [][]Window{w(1, 3), w(1, 2)}, 3, 0, false, true},
		{"each has its own", w(1, 2), [][]Window{w(1, 3), w(1, 4)}, 3, 0, false, true},
		{"who has not got there says nothing", w(1, 2), [][]Window{w(1), w(1)}, 3, 0, false, false},
		{"one of two", w(1), [][]Window{w(2)}, 2, 0, false, true},
		{"three of five", w(1), [][]Window{w(2), w(2), w(2)}, 5, 1, true, true},
		{"two of five", w(1), [][]Window{w(2), w(2)}, 5, 0, false, true},
	} {
		number, outvoted, other := Differs(x.mine, x.others, x.voters)
		if number != x.number || outvoted != x.outvoted || other != x.other {
			t.Errorf("%s: window %d, outvoted %t, otherwise %t", x.what, number, outvoted, other)
		}
	}
}

// BenchmarkApply shows what windows cost beside applying: -bench Apply.
func BenchmarkApply(b *testing.B) {
	logs := readGolden(b, fmt.Sprintf("testdata/rules%d.log.gz", deploy.RulesKnown))
	for b.Loop() {
		for _, g := range logs {
			s := New(deploy.RulesKnown)
			for i, data := range g.Entries {
				s.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
			}
		}
	}
}
