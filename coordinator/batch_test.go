package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
)

// TestABatchOfEnrolmentsIsOneEntry: who comes while an entry is on its way shares the
// next one, and everybody hears what became of his own facts.
func TestABatchOfEnrolmentsIsOneEntry(t *testing.T) { synctest.Test(t, batchOfEnrolments) }

func batchOfEnrolments(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var entries atomic.Int32
	first := make(chan struct{})
	b := newBatches(func(_ context.Context, e state.Entry) (out []error, err error) {
		if entries.Add(1) == 1 {
			<-first
		}
		for _, x := range e.Events {
			h := x.(deploy.HostEnrolled)
			if h.Zone == "odd" {
				out = append(out, errors.New("refused "+h.Host))
			} else {
				out = append(out, nil)
			}
		}
		for _, x := range e.Cluster {
			out = append(out, errors.New("cluster "+x.(state.TokenRevoked).ID))
		}
		return out, nil
	})
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	const n = 200
	var all sync.WaitGroup
	start := func(i int) {
		all.Go(func() {
			id, zone, want := fmt.Sprint(i), "even", ""
			switch i % 3 {
			case 1:
				zone, want = "odd", "refused "+id
			case 2:
				want = "cluster " + id
				if err := b.cluster(ctx, state.TokenRevoked{ID: id}); err == nil || err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
				return
			}
			out, err := b.Propose(ctx, []deploy.Event{deploy.HostEnrolled{Host: id, Zone: zone}})
			if err != nil || len(out) != 1 || fmt.Sprint(out[0]) != want && (out[0] != nil || want != "") {
				t.Errorf("%v, %v, want %q", out, err, want)
			}
		})
	}
	start(0)
	synctest.Wait()
	for i := 1; i < n; i++ {
		start(i)
	}
	synctest.Wait() // all of them are waiting
	close(first)
	all.Wait()
	if got := entries.Load(); got != 2 {
		t.Errorf("%d proposals made %d entries", n, got)
	}
	cancel()
	<-ended
}

func TestAnEntryHasABound(t *testing.T) {
	long := deploy.HostEnrolled{Labels: map[string]string{"k": string(make([]byte, 600<<10))}}
	one := proposal{entry: state.Entry{Entry: deploy.Entry{Events: []deploy.Event{long}}}}
	if n := fitting([]proposal{one, one, one}); n != 1 {
		t.Errorf("%d of 600 KiB make an entry of 1 MiB", n)
	}
	var many []proposal
	for range 2 * batchFacts {
		many = append(many, proposal{entry: state.Entry{Cluster: []state.ClusterEvent{state.TokenUsed{}}}})
	}
	if n := fitting(many); n != batchFacts {
		t.Errorf("%d facts make an entry", n)
	}
}

// TestWhatAHostSaysWeighs: words that wait for a person are in the entry too.
func TestWhatAHostSaysWeighs(t *testing.T) {
	says := &deploy.Attributes{Labels: map[string]string{"k": strings.Repeat("x", 1000)}}
	for what, e := range map[string]state.Entry{
		"a hello":      {Entry: deploy.Entry{Events: []deploy.Event{deploy.HostEnrolled{Says: says}}}},
		"an enrolment": {Cluster: []state.ClusterEvent{state.TokenUsed{Says: says}}},
	} {
		if w := weight(e); w < 1000 {
			t.Errorf("%s weighs %d", what, w)
		}
	}
}
