package state

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
)

// put applies an entry as raft does.
func put(t *testing.T, s *Store, index uint64, e Entry) {
	t.Helper()
	e.Rules = 1
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range s.Apply(&raft.Log{Index: index, Data: data}).(Applied).Refusals {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnEntryWakesWhomItConcerns: of 300 and of 30,000 who wait, one.
func TestAnEntryWakesWhomItConcerns(t *testing.T) {
	for _, n := range []int{300, 30_000} {
		s := New(1)
		waits := map[string]<-chan struct{}{}
		for i := range n {
			id := fmt.Sprintf("h%05d", i)
			ch, stop := s.WatchHost(id)
			defer stop()
			waits[id] = ch
		}
		woken := func() (ids []string) {
			for id, ch := range waits {
				select {
				case <-ch:
					ids = append(ids, id)
				default:
				}
			}
			return ids
		}
		put(t, s, 1, Entry{Entry: deploy.Entry{Events: []deploy.Event{deploy.HostEnrolled{Host: "h00007", Name: "x"}}}})
		if ids := woken(); len(ids) != 1 || ids[0] != "h00007" {
			t.Errorf("one host of %d changed and %d were woken", n, len(ids))
		}
		put(t, s, 2, Entry{Cluster: []ClusterEvent{TokenCreated{ID: "t", Role: "agent", Uses: 1}}})
		if ids := woken(); len(ids) != 0 {
			t.Errorf("a token was made and %d of %d were woken", len(ids), n)
		}
		put(t, s, 3, Entry{Cluster: []ClusterEvent{CoordinatorJoined{Name: "c2"}}})
		if ids := woken(); len(ids) != n {
			t.Errorf("a coordinator joined and %d of %d were woken", len(ids), n)
		}
	}
}

func TestWhoWatchesNoMoreIsForgotten(t *testing.T) {
	s := New(1)
	_, one := s.WatchHost("h1")
	_, two := s.WatchHost("h1")
	_, three := s.WatchDeployment("d1")
	for _, stop := range []func(){one, two, three} {
		stop()
	}
	if len(s.watches.by) != 0 {
		t.Errorf("%v is watched", s.watches.by)
	}
}

// TestWaitIsForOneEntry: who waits for an entry sees it when he is told, whatever the
// order in which they came, and who gives up leaves nothing.
func TestWaitIsForOneEntry(t *testing.T) {
	s := New(1)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(short, 9); !errors.Is(err, context.Canceled) || len(s.watches.entries) != 0 {
		t.Errorf("%v, and %d wait", err, len(s.watches.entries))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 3)
	for _, index := range []uint64{3, 1, 2} {
		go func() {
			err := s.Wait(ctx, index)
			s.View(func(st *deploy.State) {
				if err == nil && st.Index < index {
					err = fmt.Errorf("told of entry %d at %d", index, st.Index)
				}
			})
			done <- err
		}()
	}
	for i := range uint64(3) {
		put(t, s, i+1, Entry{})
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Wait(ctx, 2); err != nil {
		t.Errorf("an entry of before: %v", err)
	}
}
