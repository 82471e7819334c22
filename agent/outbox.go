package agent

import (
	"maps"
	"slices"
	"sync"

	"github.com/groundswell/groundswell/agent/journal"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// hostCounter is the journal's nameless target, which is no application: it
// numbers the reports of the whole host, because an acknowledgement covers
// every report up to its counter, whatever application it is about.
const hostCounter = ""

// outbox says which targets have something to report. A report is a whole
// state, so it is made when it is sent and only the newest one counts; the
// journal keeps what it is made of. A coordinator that cannot commit reports
// ends the session, and the next session reports every target anew: so nothing
// depends on an acknowledgement.
type outbox struct {
	journal *journal.Journal
	wake    chan struct{} // something is due

	mu    sync.Mutex
	floor uint64          // of the coordinator
	due   map[string]bool // applications
}

func newOutbox(j *journal.Journal) *outbox {
	return &outbox{journal: j, wake: make(chan struct{}, 1), due: map[string]bool{}}
}

// mark makes a target's report due.
func (b *outbox) mark(app string) {
	b.mu.Lock()
	b.due[app] = true
	b.mu.Unlock()
	signal(b.wake)
}

// connected begins a session, in which every target reports: the coordinator
// may have called the host unreachable meanwhile, or forgotten what it
// acknowledged.
func (b *outbox) connected(floor uint64, apps []string) {
	b.mu.Lock()
	b.floor = floor
	for _, app := range apps {
		b.due[app] = true
	}
	b.mu.Unlock()
	signal(b.wake)
}

// number returns a counter above every one used before, in former lives too.
func (b *outbox) number() (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.journal.NextCounter(hostCounter, b.floor)
}

// take returns the reports that are due, numbered in their order. A target
// for which state answers nil has nothing to say yet and marks itself later.
func (b *outbox) take(state func(app string) *agentv1.Report) ([]*agentv1.Report, error) {
	b.mu.Lock()
	due := slices.Sorted(maps.Keys(b.due))
	clear(b.due)
	b.mu.Unlock()
	var out []*agentv1.Report
	for _, app := range due {
		r := state(app)
		if r == nil {
			continue
		}
		var err error
		if r.Counter, err = b.number(); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
