package batch_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/groundswell/groundswell/coordinator/batch"
)

// What comes while a commit is on its way shares the next, in its order and
// within what fits; a queue is left full while most wait; the end waits for the
// commit on its way and begins no other.
func TestRun(t *testing.T) { synctest.Test(t, run) }

func run(t *testing.T) {
	const most, fit = 8, 5
	ctx, cancel := context.WithCancel(t.Context())
	queue, release := make(chan int, 100), make(chan struct{})
	var got [][]int
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		batch.Run(ctx, queue, most, func(all []int) int { return min(fit, len(all)) }, func(all []int) {
			got = append(got, slices.Clone(all))
			<-release
		})
	}()
	next := func(want ...int) {
		t.Helper()
		synctest.Wait()
		if last := got[len(got)-1]; !slices.Equal(last, want) {
			t.Fatalf("committed %v, want %v", last, want)
		}
	}
	queue <- 1
	next(1)
	for i := range 20 {
		queue <- 2 + i
	}
	synctest.Wait()
	if len(got) != 1 || len(queue) != 20-most {
		t.Fatalf("%d commits, %d left in the queue, want 1 and %d", len(got), len(queue), 20-most)
	}
	release <- struct{}{}
	next(2, 3, 4, 5, 6)
	release <- struct{}{}
	next(7, 8, 9, 10, 11)
	cancel()
	synctest.Wait()
	select {
	case <-ended:
		t.Fatal("ended before the commit on its way")
	default:
	}
	release <- struct{}{}
	<-ended
	if len(got) != 3 {
		t.Errorf("commits %v", got)
	}
}
