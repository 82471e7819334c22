package attack

import (
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestNoChangeSlipsBetween gives and takes the right to freeze, through one replica,
// while its holder freezes through all of them, and then plays the log: whatever was
// applied lies behind a document that allows it, and what was refused for another
// document changed nothing.
func TestNoChangeSlipsBetween(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	without := strings.Replace(tenants, "{people: [deployer], role: deployer,", "{people: [deployer], role: viewer,", 1)
	admin := controlv1.NewControlServiceClient(y.dial(y.nodes[1].API, y.people["admin"]))
	stop := make(chan struct{})
	var busy sync.WaitGroup
	var mu sync.Mutex
	answers := map[codes.Code]int{}
	for i, n := range y.nodes {
		api := controlv1.NewControlServiceClient(y.dial(n.API, y.people["deployer"]))
		for worker := range 4 {
			busy.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					_, err := api.SetFreeze(t.Context(), &controlv1.SetFreezeRequest{
						Mutation: &controlv1.Mutation{RequestId: rand.Text()}, App: own, Group: "prod",
						Lift: (i+worker)%2 == 0,
					})
					mu.Lock()
					answers[status.Code(err)]++
					mu.Unlock()
				}
			})
		}
	}
	const changes = 100
	for i := range changes {
		source := tenants
		if i%2 == 0 {
			source = without
		}
		again(y.cluster, admin.ApplyAccess, &controlv1.ApplyAccessRequest{
			Source: []byte(source), Mutation: &controlv1.Mutation{RequestId: rand.Text()},
		})
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			if i%2 == 0 {
				return answers[codes.PermissionDenied]
			}
			return answers[codes.OK] + answers[codes.NotFound]
		}
		y.until("nobody is answered by this document", func() func() bool { // so that some lies between two changes
			before := count()
			return func() bool { return count() > before }
		}())
	}
	close(stop)
	busy.Wait()
	if answers[codes.PermissionDenied] == 0 || answers[codes.OK] == 0 {
		t.Fatalf("the holder was answered %v: nothing is proved", answers)
	}
	for _, n := range y.nodes {
		n.stop()
	}
	applied, stale := y.play(y.nodes[0])
	t.Logf("answers %v; of the log's entries %d were applied and %d refused for another document", answers,
		applied, stale)
	if applied == 0 {
		t.Error("nothing was applied")
	}
}

// play applies the log of a coordinator that does not run, and checks what the deployer
// did in it.
func (y *tenancy) play(n *node) (applied, stale int) {
	y.t.Helper()
	log, err := raftboltdb.New(raftboltdb.Options{
		Path: readable(y.t, n), MsgpackUseNewTimeFormat: true, BoltOptions: &bbolt.Options{
			ReadOnly: true,
			Timeout:  time.Second,
		},
	})
	if err != nil {
		y.t.Fatal(err)
	}
	defer log.Close()
	last, err := log.LastIndex()
	if err != nil {
		y.t.Fatal(err)
	}
	s := state.New(deploy.RulesKnown)
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			y.t.Fatal(err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		e, err := state.Decode(l.Data)
		if err != nil {
			y.t.Fatal(err)
		}
		mine, may := ofDeployer(e), false
		s.ViewCluster(func(c *state.Cluster) {
			var doc *access.Document
			if c.Access != nil {
				if doc, err = access.Parse([]byte(c.Access.Source), "access.yaml"); err != nil {
					y.t.Fatal(err)
				}
			}
			may = doc.Of("deployer").May(access.Freeze, own, "prod")
		})
		refusal := s.Apply(&l).(state.Applied).Err()
		r, _ := refusal.(*deploy.Refusal)
		switch {
		case !mine:
		case r != nil && r.Reason == state.StaleRights:
			stale++
		case !may:
			y.t.Errorf("entry %d was applied (%v) though the document in force does not allow it", i, refusal)
		default:
			applied++
		}
	}
	return applied, stale
}

func ofDeployer(e state.Entry) bool {
	for _, ev := range e.Events {
		switch ev := ev.(type) {
		case deploy.FreezeSet:
			return ev.Request.Actor == "deployer"
		case deploy.FreezeLifted:
			return ev.Request.Actor == "deployer"
		}
	}
	return false
}
