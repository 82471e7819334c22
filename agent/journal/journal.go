package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/internal/durable"
)

// ErrLocked says that another agent has the state folder.
var ErrLocked = errors.New("another agent is running on this state folder")

// ErrStale says that an assignment is not above the highest generation that
// the target was given. It is the fence: nothing was recorded.
var ErrStale = errors.New("generation is not above the acknowledged one")

// The file is rewritten when it has grown to the larger of the two: beyond
// compactMin bytes and to compactFactor times its shortest form. At 64 KiB a
// rewrite costs less than the fsyncs of the appends that led there.
const (
	compactMin    = 64 << 10
	compactFactor = 4
)

// counterBlock is how many report counters one durable entry reserves, so
// that a heartbeat costs no fsync.
const counterBlock = 1024

// Journal is the open journal of a state folder.
type Journal struct {
	mu      sync.Mutex
	lock    *flock.Flock
	log     *durable.Log
	targets map[string]*Target
	short   int64    // size after the last rewrite
	waiting [][]byte // records in the state that are not in the file yet
}

// lockPatience is how long the lock is asked for: a process that the former
// agent was just starting as it was killed holds a copy until its exec.
const lockPatience = time.Second

// Open opens the journal of the state folder dir, which is made if need be,
// and locks the folder until Close. A second agent gets ErrLocked.
func Open(dir string) (*Journal, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	held, err := lock.TryLockContext(ctx, lockPatience/50)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lock state folder %s: %w", dir, err)
	}
	if !held {
		return nil, fmt.Errorf("lock state folder %s: %w; stop it, or give this one its own folder", dir, ErrLocked)
	}
	j := &Journal{lock: lock, targets: map[string]*Target{}}
	if j.log, err = durable.OpenLog(filepath.Join(dir, "journal"), j.replay); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), lock.Unlock())
	}
	return j, nil
}

// Dropped is the length of a torn last record that opening cut off.
func (j *Journal) Dropped() int64 { return j.log.Dropped() }

func (j *Journal) replay(data []byte) error {
	e, err := decode(data)
	if err == nil {
		j.apply(e)
	}
	return err
}

func (j *Journal) apply(e entry) {
	if e.Forget {
		delete(j.targets, e.App)
		return
	}
	t := j.targets[e.App]
	if t == nil {
		t = newTarget(e.App)
		j.targets[e.App] = t
	}
	t.apply(e)
}

// Apps lists the targets' applications, sorted.
func (j *Journal) Apps() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(maps.Keys(j.targets))
}

// Target returns what is known of an application; the zero history for one
// that was never assigned.
func (j *Journal) Target(app string) Target {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.targets[app]; t != nil {
		return t.clone()
	}
	return newTarget(app).clone()
}

// Assign records a new desired state, or answers ErrStale.
func (j *Journal) Assign(a task.Assignment) error {
	if err := a.Validate(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.targets[a.App]; t != nil && a.Generation <= t.highest() {
		return fmt.Errorf("assign generation %d of %s, which has %d: %w", a.Generation, a.App, t.highest(), ErrStale)
	}
	return j.append(entry{App: a.App, Record: &task.Record{Assigned: &a}})
}

// highest is the highest generation that the target was ever given.
func (t *Target) highest() uint64 {
	var top uint64
	for _, r := range t.Records {
		if r.Base != nil {
			top = max(top, r.Base.Generation)
		}
		if r.Assigned != nil {
			top = max(top, r.Assigned.Generation)
		}
	}
	return top
}

// Retry records that a broken target tries its way back again, see task.Retry.
func (j *Journal) Retry(app string, number int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(entry{App: app, Record: &task.Record{Retried: &task.Retry{Number: number}}})
}

// Begin records that a step is begun; only then may it be done. It is durable
// on return, with everything before it.
func (j *Journal) Begin(app string, s task.Step) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.Resume = false
	return j.append(entry{App: app, Record: &task.Record{Begin: &s}})
}

// Through records a step that does nothing outside this process, begun and
// ended at once. It becomes durable with the next record that does: a crash
// before takes the step again, which is as harmless as it was.
func (j *Journal) Through(app string, s task.Step, outcome task.Outcome) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.Resume = false
	if err := j.later(entry{App: app, Record: &task.Record{Begin: &s}}); err != nil {
		return err
	}
	return j.end(app, outcome, "")
}

// Flush makes everything recorded so far durable.
func (j *Journal) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.flush()
}

// maxDetail bounds the text of an end: as much as a report carries.
const maxDetail = 4096

// End records how the step begun last has ended. Closing a generation is
// durable on return, and makes what runs the last good revision in the same
// write. The end of any other step becomes durable with the next record: a
// crash before leaves the step begun, and every step that is begun may be
// taken up again (a hook answers with the result that its supervisor kept).
func (j *Journal) End(app string, outcome task.Outcome, detail string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(detail) > maxDetail {
		detail = detail[len(detail)-maxDetail:]
	}
	return j.end(app, outcome, detail)
}

func (j *Journal) end(app string, outcome task.Outcome, detail string) error {
	e := entry{App: app, Record: &task.Record{End: &task.End{Outcome: outcome, Detail: detail}}}
	if t := j.targets[app]; t != nil && outcome.OK() {
		if s := t.State().Next; s.Kind == task.KindReport && s.Result == task.ResultDone && s.Revision != "" {
			e.LastGood = &s.Revision
		}
	}
	if t := j.targets[app]; t != nil && t.State().Next.Kind != task.KindReport {
		return j.later(e)
	}
	return j.append(e)
}

// Adopt records what runs on a target that this journal never installed, for
// instance after its folder was lost. The target must have no records.
func (j *Journal) Adopt(app, running string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.targets[app] != nil {
		return fmt.Errorf("adopt what runs of %s: the journal has a history of it: %w", app, os.ErrExist)
	}
	return j.append(entry{App: app, Record: &task.Record{Base: &task.Base{Running: running}}})
}

// Forget removes a target for good.
func (j *Journal) Forget(app string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(entry{App: app, Forget: true})
}

// NextCounter returns a report counter above every one it returned before, in
// former lives too, and above floor, which is the coordinator's last.
func (j *Journal) NextCounter(app string, floor uint64) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.targets[app]
	if t == nil {
		t = newTarget(app)
	}
	next := max(t.counter, floor)
	if t.counter == 0 { // first since opening: what was reserved may be used
		next = max(next, t.reserved)
	}
	if next++; next > t.reserved {
		if err := j.append(entry{App: app, Counter: next + counterBlock}); err != nil {
			return 0, err
		}
		t = j.targets[app]
	}
	t.counter = next
	return next, nil
}

// append makes a record durable, with the ones that wait for it.
func (j *Journal) append(e entry) error {
	if err := j.later(e); err != nil {
		return err
	}
	return j.flush()
}

// later takes a record into the state; it waits for the next flush.
func (j *Journal) later(e entry) error {
	data, err := e.encode()
	if err != nil {
		return err
	}
	j.waiting = append(j.waiting, data)
	j.apply(e)
	return nil
}

func (j *Journal) flush() error {
	if len(j.waiting) == 0 {
		return nil
	}
	if err := j.log.Append(j.waiting...); err != nil {
		return fmt.Errorf("record in journal: %w", err)
	}
	j.waiting = nil
	if size := j.log.Size(); size > compactMin && size > compactFactor*j.short {
		return j.compact()
	}
	return nil
}

// compact rewrites the file in its shortest form, atomically.
func (j *Journal) compact() error {
	var records [][]byte
	for _, app := range slices.Sorted(maps.Keys(j.targets)) {
		for _, e := range j.targets[app].entries() {
			data, err := e.encode()
			if err != nil {
				return err
			}
			records = append(records, data)
		}
	}
	if err := j.log.Rewrite(slices.Values(records)); err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	j.short = j.log.Size()
	return nil
}

// Close ends the use of the state folder.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.flush(), j.log.Close(), j.lock.Unlock())
}
