package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// comeBack bounds how long sessions take to come back.
const comeBack = 5 * time.Minute

// killLeaders kills the leader, as often as was asked for: how long until the next
// submit is accepted, and until the sessions are back.
func (r *run) killLeaders(ctx context.Context) error {
	for range r.o.KillLeader {
		if err := r.killLeader(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) killLeader(ctx context.Context) error {
	leader, err := r.fleet.Leader(ctx)
	if err != nil {
		return err
	}
	alive := slices.DeleteFunc(slices.Clone(r.fleet.Addresses()), func(a string) bool { return a == leader.API })
	cred, err := identity.Load(r.fleet.Credentials())
	if err != nil {
		return err
	}
	var conns []controlv1.ControlServiceClient
	for _, a := range alive {
		cc, err := rpc.Dial([]string{a}, cred.Client())
		if err != nil {
			return err
		}
		defer func(cc *grpc.ClientConn) { _ = cc.Close() }(cc)
		conns = append(conns, controlv1.NewControlServiceClient(cc))
	}
	r.o.Say("killing the leader %s", leader.Name)
	if err := r.fleet.KillCoordinator(leader); err != nil {
		return err
	}
	killed := time.Now()
	r.kills++
	failed := make(chan error, 1)
	go func() { failed <- r.failover(ctx, conns, killed) }()
	back, err := r.sessionsBack(ctx, killed)
	if err = errors.Join(err, <-failed); err != nil {
		return err
	}
	r.out.SessionsBack = append(r.out.SessionsBack, back)
	return r.fleet.RestartCoordinator(ctx, leader)
}

// failover submits, at one coordinator after the other, until that is accepted, and
// waits for the deployment's end.
func (r *run) failover(ctx context.Context, at []controlv1.ControlServiceClient, killed time.Time) error {
	n := int(r.submitted.Add(1))
	app := n % r.shape.Apps()
	by := [2]*controlv1.Mutation{mutation(), mutation()}
	for i := 0; ; i++ {
		control := at[i%len(at)]
		try, cancel := context.WithTimeout(ctx, time.Second)
		id, accepted, err := r.submit(try, control, app, n, by)
		cancel()
		if err == nil {
			r.out.Failover = append(r.out.Failover, accepted.Sub(killed).Seconds())
			return r.watch(ctx, control, id)
		}
		if time.Since(killed) > time.Minute || ctx.Err() != nil {
			return fmt.Errorf("no submit was accepted within a minute of the leader's end: %w", err)
		}
		time.Sleep(10 * time.Millisecond) // it is refused at once while there is no leader
	}
}

// sessionsBack waits until every host has a session again.
func (r *run) sessionsBack(ctx context.Context, since time.Time) (out Reconnect, err error) {
	lowest, all := int64(r.o.Hosts), int64(r.o.Hosts)
	var half time.Duration
	err = r.crew.until(ctx, comeBack, "every session to come back", func(n Counts) bool {
		if n.Up < lowest {
			lowest, half = n.Up, 0
		}
		if half == 0 && n.Up >= lowest+(all-lowest)/2 && lowest < all {
			half = time.Since(since)
		}
		return n.Up >= all && (lowest < all || time.Since(since) > 5*time.Second)
	})
	return Reconnect{Half: half.Seconds(), All: time.Since(since).Seconds()}, err
}

// cutAll ends every session at once.
func (r *run) cutAll(ctx context.Context) error {
	if !r.o.Reconnect {
		return nil
	}
	r.o.Say("cutting every session")
	cpu, cut := r.fleet.CPU(), time.Now()
	if _, err := r.crew.tell("drop"); err != nil {
		return err
	}
	back, err := r.sessionsBack(ctx, cut)
	if err != nil {
		return err
	}
	r.out.Reconnect, r.out.ReconnectCPU = &back, seconds(r.fleet.CPU()-cpu)
	return nil
}
