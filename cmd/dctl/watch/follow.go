package watch

import (
	"context"
	"errors"
	"io"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Update is one step of a watch: news of a deployment, or that the connection
// was lost (and is being made anew), or the end.
type Update struct {
	Deployment *controlv1.Deployment // nil is no news of it
	Records    []*controlv1.Record
	Lost       error // nil while connected
	end        error // the watch is over; errEnd when it has seen everything
}

// errEnd says that a watch has seen a deployment to its end.
var errEnd = errors.New("the deployment has ended")

// unsureTries is how often a watch is tried again, without progress, after an
// answer that may be passing: a replica that lags does not know the deployment
// yet, for 3 s at most, one that stops ends its streams in its own ways. These tries
// take some 10 s.
const unsureTries = 10

// follower follows one deployment across failures of coordinators: each record
// is delivered once and in order, and states never go backwards.
type follower struct {
	cluster Cluster
	o       Options
	index   uint64 // of the last record delivered
	state   uint64 // of the last state delivered
	to      string // what the last record of the deployment itself said
	ended   bool
}

// run sends updates until the deployment has ended or waits for a decision (for
// a program also: for an approval, which may take days), ctx ends, or the server refuses; then it closes the channel.
func (f *follower) run(ctx context.Context, out chan<- Update) {
	defer close(out)
	for try := 0; ; try++ {
		before := f.state
		err := f.stream(ctx, out)
		switch {
		case f.ended:
			err = errEnd
		case ctx.Err() != nil:
			err = ctx.Err()
		case f.again(err, try):
			if f.state != before {
				try = 0
				f.o.Backoff.Reset()
			}
			if rpc.Kind(err) != rpc.KindNotFound { // a replica that lags is no loss
				f.send(ctx, out, Update{Lost: err})
			}
			if err = f.cluster.FailOver(err); err != nil {
				break
			}
			if f.o.Wait(ctx, f.o.Backoff.NextBackOff()) == nil {
				continue
			}
			err = ctx.Err()
		}
		f.send(ctx, out, Update{end: err})
		return
	}
}

// again reports whether the watch goes on after a stream ended with err.
func (f *follower) again(err error, try int) bool {
	switch rpc.Kind(err) {
	case rpc.KindUnavailable, rpc.KindTimeout, rpc.KindTooMany:
		return true
	case rpc.KindNotFound:
		return (f.o.Fresh || f.state > 0) && try < unsureTries
	case rpc.KindInvalid, rpc.KindUnauthorised, rpc.KindForbidden:
		return false
	}
	return try < unsureTries
}

// stream delivers what one stream brings. A stream that ends before the
// deployment does is an error of kind unavailable.
func (f *follower) stream(ctx context.Context, out chan<- Update) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := f.cluster.API().WatchDeployment(ctx,
		&controlv1.WatchDeploymentRequest{Id: f.o.Deployment, After: f.index})
	if err != nil {
		return err
	}
	for !f.ended {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return rpc.Errorf(rpc.KindUnavailable, "the coordinator ended the watch")
		}
		if err != nil {
			return err
		}
		f.send(ctx, out, f.news(m))
	}
	return nil
}

// news drops what was delivered before: a replica that lags sends old states,
// and a new stream may repeat records. The end is the state together with the
// record of it; the history before may come in several messages.
func (f *follower) news(m *controlv1.WatchDeploymentResponse) Update {
	var u Update
	last := f.index
	for _, r := range m.Records {
		if r.Index <= f.index {
			continue
		}
		u.Records = append(u.Records, r)
		last = max(last, r.Index)
		if r.Subject == "deployment" {
			f.to = r.To
		}
	}
	f.index = last
	if d := m.Deployment; d != nil && d.Index >= f.state {
		u.Deployment, f.state = d, d.Index
		f.ended = Over(d) && f.to == d.Status || len(d.WaitsFor) > 0 && !f.o.Live
	}
	return u
}

func (f *follower) send(ctx context.Context, out chan<- Update, u Update) bool {
	select {
	case out <- u:
		return true
	case <-ctx.Done():
		return false
	}
}
