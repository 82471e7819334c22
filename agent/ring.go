package agent

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// ring is the host's place in the gossip ring, and what it knows of where
// coordinators are. The addresses are told by coordinators alone, in Enrol, in
// Welcome and after it: whoever has the ring's key can say anything there. What
// gossip adds is which of them live, a hint by which they are tried in order.
type ring struct {
	o       Options
	id      string
	members *gossip.Ring
	keys    []byte // that members uses; guarded by saving

	saving sync.Mutex // held while membership is written; before mu

	mu    sync.Mutex
	known membership        // as saved
	seen  map[string]string // who say that they are coordinators and live: id to agent address
	wake  chan struct{}     // something was learnt
	met   chan struct{}     // a coordinator has welcomed the host of whom gossip knows nothing
	// stranger is the name of that coordinator.
	stranger string
}

// mostSeen bounds how many say so; a cluster has three or five.
const mostSeen = 64

// openRing joins the ring. Seeds that do not answer are tried again by run.
func openRing(o Options, m membership, key []byte) (*ring, error) {
	r := &ring{
		o: o, id: m.Host, known: m, keys: key, seen: map[string]string{}, wake: make(chan struct{}, 1),
		met: make(chan struct{}, 1),
	}
	var err error
	r.members, err = gossip.Open(gossip.Options{
		Self: gossip.Member{ID: m.Host, Role: "agent"}, Bind: o.GossipBind, Keys: key, Seeds: m.Seeds,
		Changed: r.changed,
		Network: o.Ring,
	})
	return r, err
}

func (r *ring) changed(m gossip.Member, alive bool) {
	if m.Role != "coordinator" || m.Agent == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !alive {
		delete(r.seen, m.ID)
	} else if _, known := r.seen[m.ID]; known || len(r.seen) < mostSeen || r.toldOf(m.Agent) {
		r.seen[m.ID] = m.Agent
	}
	if len(r.living()) == 0 {
		signal(r.wake) // alone now: run asks the seeds from here on
	}
}

// told takes the word of a coordinator for where all of them are.
func (r *ring) told(m *agentv1.Members) {
	agents, seeds := bounded(m.GetAgents()), bounded(m.GetSeeds())
	if len(agents) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(agents, r.known.Coordinators) && slices.Equal(seeds, r.known.Seeds) {
		return
	}
	r.known.Coordinators, r.known.Seeds = agents, seeds
	signal(r.wake)
}

// welcomed notes that the coordinator of that name has welcomed the host. If the
// ring does not know that it lives, because it has just started, it is called.
func (r *ring) welcomed(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, lives := r.seen[name]; !lives {
		r.stranger = name
		signal(r.met)
	}
}

// addresses are those that coordinators and the configuration told.
func (r *ring) addresses() []string {
	return bounded(append(slices.Clone(r.o.Coordinators), r.known.Coordinators...))
}

func (r *ring) toldOf(address string) bool { return slices.Contains(r.addresses(), address) }

// living are those of them that gossip says are alive.
func (r *ring) living() (alive []string) {
	for _, a := range r.addresses() {
		if slices.Contains(slices.Collect(maps.Values(r.seen)), a) {
			alive = append(alive, a)
		}
	}
	return alive
}

// signal wakes the reader of a channel of length one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// coordinators lists the addresses to try, best first. Rendezvous hashing
// spreads hosts evenly over the coordinators that gossip says are alive, and
// moves only those of one that comes or goes; the others follow as a last
// resort.
func (r *ring) coordinators() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := r.living()
	var rest []string
	for _, a := range r.addresses() {
		if !slices.Contains(alive, a) {
			rest = append(rest, a)
		}
	}
	return append(r.rank(alive), r.rank(rest)...)
}

func (r *ring) rank(addresses []string) []string {
	weight := func(a string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(r.id + "\x00" + a)) // never fails
		return mix(h.Sum64())
	}
	slices.SortFunc(addresses, func(a, b string) int {
		if weight(a) > weight(b) {
			return -1
		}
		return 1
	})
	return addresses
}

// mix spreads a hash over all its bits (the finaliser of splitmix64): FNV
// alone ranks texts that differ in their last bytes almost alike.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Times of run: an agent that sees no coordinator asks its seeds again.
const (
	rejoinAlone = 5 * time.Second
	rejoinCalm  = 5 * time.Minute
)

// run remembers what is learnt and rejoins, until ctx ends; then it leaves
// the ring, which is a hint to the others and no departure from the cluster.
func (r *ring) run(ctx context.Context) error {
	var call <-chan time.Time // the stranger
	idle := make(chan struct{}, 1)
	idle <- struct{}{}
	rejoin := func() { // beside the loop: a seed that is dead takes ten seconds, and nobody waits for them
		select {
		case <-idle:
			go func() {
				r.rejoin()
				idle <- struct{}{}
			}()
		default: // it is under way, perhaps of what was known before
			call = time.After(rejoinAlone)
		}
	}
	for {
		r.mu.Lock()
		every := rejoinCalm
		if len(r.living()) == 0 {
			every = rejoinAlone
		}
		r.mu.Unlock()
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			if err := r.members.Leave(); err != nil {
				r.o.Log.Warn("the gossip ring was not closed", "error", err)
			}
			return nil
		case <-r.wake:
			timer.Stop()
			if err := r.save(); err != nil {
				r.o.Log.Warn("addresses of coordinators not remembered", "error", err)
			}
		case <-r.met:
			timer.Stop()
			call = time.After(r.soon())
		case <-call:
			timer.Stop()
			rejoin()
		case <-timer.C:
			rejoin()
		}
	}
}

// soon is when to call a coordinator that has just started: so that of all members
// of the ring twenty a second would. The first one that does tells the others, and a
// call exchanges everything that a ring knows.
func (r *ring) soon() time.Duration {
	return rand.N(time.Duration(1+len(r.members.Members())) * 50 * time.Millisecond)
}

func (r *ring) rejoin() {
	r.mu.Lock()
	seeds, living := slices.Clone(r.known.Seeds), r.living()
	_, lives := r.seen[r.stranger]
	missed := r.stranger != "" && !lives
	r.stranger = ""
	r.mu.Unlock()
	if len(living) == 0 || missed {
		r.members.Rejoin(seeds)
	}
}

// setKeys takes the word of a coordinator for the ring's keys, and has them on disk
// on return.
func (r *ring) setKeys(keys []byte) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	if bytes.Equal(r.keys, keys) {
		return nil
	}
	if err := r.members.SetKeys(keys); err != nil {
		return err
	}
	r.keys = keys
	return identity.WriteSecret(r.o.path("identity", "gossip.key"), keys)
}

// epoch is the highest that the host has seen.
func (r *ring) epoch() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known.Epoch
}

// enter refuses a coordinator of an older epoch, and remembers a newer one on
// disk before anything of it is done: the remains of a cluster that was
// recovered without them command nobody any more.
func (r *ring) enter(epoch uint64) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch < r.known.Epoch {
		return fmt.Errorf(
			"the coordinator is of epoch %d of the cluster and this host has seen %d: it belongs to the past",
			epoch, r.known.Epoch)
	}
	if epoch == r.known.Epoch {
		return nil
	}
	known := r.known
	known.Epoch = epoch
	if err := saveMembership(r.o.path("identity"), known); err != nil {
		return err
	}
	r.known.Epoch = epoch
	return nil
}

func (r *ring) save() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	m := r.known
	r.mu.Unlock()
	return saveMembership(r.o.path("identity"), m)
}
