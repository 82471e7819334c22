package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/agent/journal"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// hostCounter is the journal's nameless target, which is no application: it
// numbers the reports of the whole host, because an acknowledgement covers
// every report up to its counter, whatever application it is about.
const hostCounter = ""

// outbox says which targets have something to report. A report is a whole
// state, so it is made when it is sent and only the newest one counts; the
// journal keeps what it is made of. Reports that are not acknowledged in time
// end the session, and the next session reports every target anew.
type outbox struct {
	journal *journal.Journal
	wake    chan struct{} // something is due

	mu    sync.Mutex
	floor uint64          // of the coordinator
	due   map[string]bool // applications
	sent  uint64          // the last report that is not acknowledged; 0 is none
	since time.Time       // waits for an acknowledgement
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
	b.sent = 0
	b.mu.Unlock()
	signal(b.wake)
}

// ackLimit is how long reports may wait for their acknowledgement: three times
// as long as a coordinator tries to commit them.
const ackLimit = 30 * time.Second

// acknowledged notes that every report up to a counter is in the log.
func (b *outbox) acknowledged(counter uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since = time.Now(); counter >= b.sent {
		b.sent = 0
	}
}

// overdue is the time until reports have waited too long, false for none.
func (b *outbox) overdue() (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(b.since.Add(ackLimit)), b.sent > 0
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
		b.awaits(r.Counter)
	}
	return out, nil
}

func (b *outbox) awaits(counter uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == 0 {
		b.since = time.Now()
	}
	b.sent = counter
}
