package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc/metadata"

	"github.com/groundswell/groundswell/internal/histories"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

const (
	clientCount = 12
	sharedCount = 4 // registers that several clients write
	// firstTry is how long a client waits for one coordinator, and lastTry how long for
	// any: no fault lasts so long.
	firstTry, lastTry = 3 * time.Second, 2 * time.Minute
	// staleBound is how old what a replica serves to people may be: 3 s until it knows
	// that it is cut off, and two for a machine that has other work.
	staleBound = 5 * time.Second
)

// crowd is clients that ask coordinators at random, and judge the answers.
//
// Registers are freezes: each is a scope of its own whose reason is the value. A
// freeze that is set twice, or after it was lifted, shows. Of each kind of promise one
// part of a client's turn is the test: what is acknowledged is there (revisions, at the
// end too), what is done is done once (requests are sent twice, at once and later), a
// client reads what it wrote from every replica, a read that carries the index of a
// write sees what was answered before that write (linearizable, by porcupine), and no
// read is older than staleBound.
type crowd struct {
	w       *trio
	began   time.Time
	history histories.History
	fresh   histories.Fresh
	acked   atomic.Int64 // requests that change something
	again   atomic.Int64 // repetitions of requests that had their answer
	tries   atomic.Int64 // calls that got no answer
	stop    chan struct{}
	done    sync.WaitGroup

	mu        sync.Mutex
	broken    []string        // promises
	revisions map[string]bool // acknowledged
	unsure    map[string]bool // not answered
}

// client is one of them.
type client struct {
	*crowd
	id   int
	r    *rand.Rand
	past []request // answered
}

// request is one that was answered.
type request struct {
	call  func(context.Context, *coordinator) (uint64, error)
	found bool
	what  string
}

func (w *trio) newCrowd() *crowd {
	w.Helper()
	file := "app: registers\nartifacts: file://" + w.dir + "/store\ngroups:\n  probe: {select: role == \"nobody\"}\n"
	for i := range sharedCount {
		file += fmt.Sprintf("  s%d: {select: role == \"nobody\"}\n", i)
	}
	for i := range clientCount {
		file += fmt.Sprintf("  p%d: {select: role == \"nobody\"}\n", i)
	}
	w.write("registers.yaml", file)
	w.machines["ops"].run("dctl apps apply -f registers.yaml")
	return &crowd{
		w: w, began: time.Now(), fresh: histories.Fresh{Within: staleBound}, stop: make(chan struct{}),
		revisions: map[string]bool{}, unsure: map[string]bool{},
	}
}

// start has the clients ask until end.
func (c *crowd) start(seed uint64) {
	for i := range clientCount {
		one := &client{crowd: c, id: i, r: rand.New(rand.NewPCG(seed, uint64(i)))}
		c.done.Go(one.run)
	}
}

// end waits for the last answers.
func (c *crowd) end() {
	close(c.stop)
	c.done.Wait()
}

func (c *crowd) now() time.Duration { return time.Since(c.began) }

// breaks notes a promise that was broken.
func (c *crowd) breaks(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, fmt.Sprintf(format, args...))
}

// verdict returns what was broken so far.
func (c *crowd) verdict() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.broken)
}

// carrying is a context whose calls ask for an index.
func carrying(ctx context.Context, index uint64) context.Context {
	if index == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "groundswell-index", fmt.Sprint(index))
}

// answers reports whether the end of a call is an answer, and not the lack of one.
func answers(err error) bool {
	switch rpc.Kind(err) {
	case rpc.KindConflict, rpc.KindNotFound, rpc.KindInvalid, rpc.KindExists:
		return true
	}
	return err == nil
}

// ask makes a call at one coordinator after another until one answers it. A request
// that changes something keeps its id. It returns false when nobody answered.
func (c *client) ask(call func(context.Context, *coordinator) error) (err error, answered bool) {
	for limit := time.Now().Add(lastTry); time.Now().Before(limit); {
		at := c.w.all[c.r.IntN(len(c.w.all))]
		ctx, cancel := context.WithTimeout(context.Background(), firstTry)
		err = call(ctx, at)
		cancel()
		if answers(err) {
			return err, true
		}
		c.tries.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
	return err, false
}

// change makes a request that changes something, now and then at two coordinators at
// once, and sometimes one of the past again.
func (c *client) change(what string, call func(context.Context, *coordinator) (uint64, error)) (
	index uint64, found, answered bool,
) {
	var twin chan error
	if c.r.IntN(10) == 0 {
		twin = make(chan error, 1)
		at := c.w.all[c.r.IntN(len(c.w.all))]
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), firstTry)
			defer cancel()
			_, err := call(ctx, at)
			twin <- err
		}()
	}
	err, answered := c.ask(func(ctx context.Context, at *coordinator) (err error) {
		index, err = call(ctx, at)
		return err
	})
	if twin != nil {
		if other := <-twin; answered && answers(other) && (other == nil) != (err == nil) {
			c.breaks("%s: one coordinator answered %v, another %v", what, err, other)
		}
	}
	found = err == nil
	switch kind := rpc.Kind(err); {
	case !answered:
		return 0, false, false
	case err != nil && kind != rpc.KindNotFound:
		c.breaks("%s: %v", what, err)
	}
	c.acked.Add(1)
	c.past = append(c.past, request{call, found, what})
	if c.r.IntN(5) == 0 {
		c.repeat(c.past[len(c.past)-1-c.r.IntN(min(len(c.past), 40))])
	}
	return index, found, true
}

// repeat makes a request again that was answered: it gets the same answer, and what the
// registers show does not change by it.
func (c *client) repeat(p request) {
	err, answered := c.ask(func(ctx context.Context, at *coordinator) error {
		_, err := p.call(ctx, at)
		return err
	})
	if answered && (err == nil) != p.found {
		c.breaks("%s was answered %t, and again with %v", p.what, p.found, err)
	}
	c.again.Add(1)
}

func mutation(reason string) *controlv1.Mutation {
	return &controlv1.Mutation{RequestId: ulid.Make().String(), Reason: reason}
}

// set writes a register, or takes its value away.
func (c *client) set(register, value string) (index uint64, answered bool) {
	r := &controlv1.SetFreezeRequest{Mutation: mutation(value), App: "registers", Group: register, Lift: value == ""}
	o := histories.Op{Client: c.id, Register: register, Kind: histories.Set, Value: value, Call: c.now()}
	if r.Lift {
		o.Kind = histories.Lift
	}
	index, o.Found, answered = c.change(fmt.Sprintf("client %d: %s %q", c.id, register, value),
		func(ctx context.Context, at *coordinator) (uint64, error) {
			out, err := at.api.SetFreeze(ctx, r)
			return out.GetIndex(), err
		})
	o.Return, o.Open = c.now(), !answered
	c.history.Add(o)
	return index, answered
}

// read returns every register, from a replica that has an index.
func (c *client) read(index uint64) (map[string]string, bool) {
	var out *controlv1.ListAppsResponse
	err, answered := c.ask(func(ctx context.Context, at *coordinator) (err error) {
		out, err = at.api.ListApps(carrying(ctx, index), &controlv1.ListAppsRequest{})
		return err
	})
	if err != nil || !answered {
		return nil, false
	}
	all := map[string]string{}
	for _, f := range out.Freezes {
		all[f.Group] = f.Reason
	}
	return all, true
}

// register pins a revision, and returns the index at which it is there.
func (c *client) register(name string) (index uint64, answered bool) {
	r := &controlv1.RegisterRevisionRequest{
		Mutation: mutation(""), App: "registers", Name: name, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))),
	}
	index, _, answered = c.change("revision "+name,
		func(ctx context.Context, at *coordinator) (uint64, error) {
			out, err := at.api.RegisterRevision(ctx, r)
			return out.GetIndex(), err
		})
	c.mu.Lock()
	defer c.mu.Unlock()
	if answered {
		c.revisions[name] = true
	} else {
		c.unsure[name] = true
	}
	return index, answered
}

// run takes turns until the crowd ends.
func (c *client) run() {
	own := fmt.Sprintf("p%d", c.id)
	for n := 1; ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		if !c.turn(own, n) {
			return // nobody answers: the test says so by what it waits for
		}
	}
}

func (c *client) turn(own string, n int) (answered bool) {
	index, answered := c.set(own, fmt.Sprint(n))
	if !answered {
		return false
	}
	c.fresh.Wrote(own, n, c.now())
	// As dctl does after a write: what it wrote is there, and what others wrote is not old.
	_, _ = c.ask(func(ctx context.Context, at *coordinator) error {
		return c.look(ctx, at, index, own, n)
	})
	c.glance(c.w.all[c.r.IntN(len(c.w.all))])

	shared := fmt.Sprintf("s%d", c.r.IntN(sharedCount))
	value := fmt.Sprintf("%d by %d", n, c.id)
	if c.r.IntN(3) == 0 {
		value = ""
	}
	if _, answered = c.set(shared, value); !answered {
		return false
	}
	// Whatever was answered before this call is in what is read at the index of it.
	called := c.now()
	if index, answered = c.register(fmt.Sprintf("r%d-%d", c.id, n)); !answered {
		return false
	}
	all, answered := c.read(index)
	if !answered {
		return false
	}
	for _, name := range []string{shared, own} {
		c.history.Add(histories.Op{
			Client: c.id, Register: name, Kind: histories.Read, Value: all[name], Call: called, Return: c.now(),
		})
	}
	return true
}

// glance reads from one replica, as somebody does who has written nothing.
func (c *client) glance(at *coordinator) {
	ctx, cancel := context.WithTimeout(context.Background(), firstTry)
	defer cancel()
	_ = c.look(ctx, at, 0, "", 0) // it may say that it does not know
}

// look reads every private register from a replica that has an index, and looks how
// old what it finds is; of its own a client finds at least a number.
func (c *client) look(ctx context.Context, at *coordinator, index uint64, own string, n int) error {
	began := c.now()
	out, err := at.api.ListApps(carrying(ctx, index), &controlv1.ListAppsRequest{})
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, f := range out.Freezes {
		var number int
		_, _ = fmt.Sscan(f.Reason, &number) // 0 for values of the shared ones, which are not looked at
		seen[f.Group] = number
	}
	for i := range clientCount {
		name := fmt.Sprintf("p%d", i)
		least, why := c.fresh.Least(name, began), staleBound.String()+" before"
		if name == own && n > least {
			least, why = n, "to the same client"
		}
		if seen[name] < least {
			c.breaks("at %s %s showed client %d %d of %s, after %d had been answered %s", began, at.name, c.id,
				seen[name], name, least, why)
		}
	}
	return nil
}
