package bucket

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneKeyDoesNotTakeFromAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Limit{PerSecond: 2, Burst: 5})
		for range 5 {
			if !b.Allow("a", 1) {
				t.Fatal("a full bucket was refused")
			}
		}
		if b.Allow("a", 1) || !b.Allow("b", 5) {
			t.Error("an empty bucket gives, or a full one of another key does not")
		}
		time.Sleep(time.Second)
		if !b.Allow("a", 2) || b.Allow("a", 1) {
			t.Error("a second gives two")
		}
		time.Sleep(time.Hour)
		if !b.Allow("a", 1000) || b.Allow("a", 1) {
			t.Error("more than a bucket holds counts as all of it")
		}
	})
}

func TestWaitTellsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Limit{PerSecond: 1, Burst: 2})
		begin := time.Now()
		if waited, err := b.Wait(t.Context(), "a", 2); waited || err != nil {
			t.Errorf("a full bucket: %v, %v", waited, err)
		}
		if waited, err := b.Wait(t.Context(), "a", 9); !waited || err != nil || time.Since(begin) != 2*time.Second {
			t.Errorf("an empty one after %s: %v, %v", time.Since(begin), waited, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Wait(ctx, "a", 1); err == nil {
			t.Error("who is gone waits")
		}
	})
}

func TestWhatWasHadIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Limit{PerSecond: 1, Burst: 10})
		if b.Charge("a", 10); b.Owes("a") {
			t.Error("a full bucket covers what it holds")
		}
		if b.Charge("a", 100); !b.Owes("a") || b.Owes("b") {
			t.Error("an empty one does not, or another's")
		}
		time.Sleep(10 * time.Second)
		if b.Owes("a") {
			t.Error("a debt of one full bucket is paid by the time that fills one")
		}
	})
}

func TestKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Limit{PerSecond: 1, Burst: 1})
		b.most = 2000
		for i := range 5000 {
			b.Allow(fmt.Sprint(i), 1)
		}
		if len(b.all) > b.most+1 {
			t.Errorf("%d keys", len(b.all))
		}
		if b.Allow("one more", 1) {
			t.Error("who comes last has a bucket of its own")
		}
		time.Sleep(time.Second)
		if b.Allow("x", 1); len(b.all) != 1 {
			t.Errorf("%d full buckets stay", len(b.all)-1)
		}
	})
}
