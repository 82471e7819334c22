package identity

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// renewing keeps a credential renewed by its CA in a bubble; while down answers
// true, the CA is out of reach.
func renewing(t *testing.T, life time.Duration, down func() bool) (c *Credential, renewed, failed *int) {
	t.Helper()
	ca := newCA(t)
	ca.Life = life
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, Agent, "h1")
	if err != nil {
		t.Fatal(err)
	}
	if c, err = NewCredential(cert, key, ca.PEM); err != nil {
		t.Fatal(err)
	}
	renewed, failed = new(int), new(int)
	renew := func(context.Context) error {
		if down() {
			return errors.New("down")
		}
		cert, err := ca.Issue(csr, Agent, "h1")
		if err != nil {
			return err
		}
		return c.Replace(cert, key)
	}
	go c.KeepRenewed(t.Context(), renew, func(err error) {
		if err != nil {
			*failed++
			return
		}
		*renewed++
	})
	return c, renewed, failed
}

// A year with a CA that is out of reach for three days of each week: the
// certificate is valid at every hour of it.
func TestRenewedForAYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c, renewed, failed := renewing(t, DefaultLife, func() bool {
			return int(time.Since(begin).Hours()/24)%7 >= 4
		})
		for range 365 * 24 {
			time.Sleep(time.Hour)
			if err := c.Valid(time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if *renewed < 365/22 || *renewed > 365/17 {
			t.Errorf("%d renewals in a year, want one each 18 to 22 days", *renewed)
		}
		if *failed == 0 {
			t.Error("the CA was never out of reach when it was asked")
		}
		t.Logf("%d renewals, %d tries failed", *renewed, *failed)
	})
}

// Out of reach from the day it is due until after its end: tried all the time,
// and renewed within minutes of its return.
func TestRenewalIsTriedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		c, renewed, failed := renewing(t, time.Hour, down.Load)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if err := c.Valid(time.Now()); err == nil {
			t.Fatal("a certificate of an hour is valid after two")
		}
		before := *failed
		if before < 20 {
			t.Errorf("tried %d times", before)
		}
		down.Store(false)
		time.Sleep(2 * endedTry)
		synctest.Wait()
		if err := c.Valid(time.Now()); err != nil || *renewed != 1 {
			t.Errorf("after the CA came back: %v, %d renewals", err, *renewed)
		}
	})
}

func TestRenewalsAreSpread(t *testing.T) {
	ca := newCA(t)
	begin, third := time.Now(), map[int]int{}
	for range 300 {
		at := issue(t, ca, Agent, "h").RenewAt().Sub(begin)
		if share := at.Hours() / DefaultLife.Hours(); share < 0.6-0.001 || share > 0.734 {
			t.Fatalf("due after %.3f of its life", share)
		}
		third[int((at.Hours()/DefaultLife.Hours()-0.6)/0.0445)]++
	}
	for i := range 3 {
		if third[i] < 50 {
			t.Errorf("300 renewals fall into thirds %v: not spread", third)
		}
	}
}
