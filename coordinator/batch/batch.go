// Package batch lets what comes while a commit is on its way share the next one.
package batch

import (
	"context"
	"slices"
)

// Run commits what comes in by queue, in its order, until ctx ends: at once what
// comes while no commit is on its way, else all that has come when that one is
// done. So nothing waits on a tick, and who is slow gets much at once. It takes
// no more from the queue while most wait. fitting says how many of them, at least
// one, may share a commit. It returns when the last commit has.
func Run[T any](ctx context.Context, queue <-chan T, most int, fitting func([]T) int, commit func([]T)) {
	var waiting []T
	committed := make(chan struct{}, 1)
	busy := false
	for {
		if len(waiting) > 0 && !busy {
			waiting = more(waiting, queue, most)
			now := waiting[:fitting(waiting)]
			waiting, busy = slices.Clone(waiting[len(now):]), true
			go func() {
				commit(now)
				committed <- struct{}{}
			}()
		}
		in := queue
		if len(waiting) >= most {
			in = nil
		}
		select {
		case x := <-in:
			waiting = append(waiting, x)
		case <-committed:
			busy = false
		case <-ctx.Done():
			if busy {
				<-committed
			}
			return
		}
	}
}

// more adds what is queued already.
func more[T any](waiting []T, queue <-chan T, most int) []T {
	for len(waiting) < most {
		select {
		case x := <-queue:
			waiting = append(waiting, x)
		default:
			return waiting
		}
	}
	return waiting
}
