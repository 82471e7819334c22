package release

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/groundswell/groundswell/internal/durable"
)

// phase is how far an install has come.
type phase string

const (
	// phasePrepared: nothing outside the plan folder was touched.
	phasePrepared phase = "prepared"
	// phaseArmed: all backups are durable; anything may have been touched.
	phaseArmed phase = "armed"
	// phaseDone: the install is complete and can still be undone.
	phaseDone phase = "done"
)

// plan is an install, decided to the last path before it begins.
type plan struct {
	From, To string
	// Phase is in a file of its own: the rest never changes.
	Phase   phase    `json:"-"`
	Actions []action `json:",omitempty"`
	// Count is the number of actions, once the plan is written.
	Count int
	// Old and New are the clean-up lists before and after.
	Old, New []string
}

type op string

const (
	opMkdir  op = "mkdir"
	opCopy   op = "copy" // a regular file or a symlink
	opAccess op = "access"
	opRemove op = "remove" // a directory only if it is empty by then
	opTouch  op = "touch"  // a file that is as it should be but for its time
)

// action is one change of one path.
type action struct {
	Op   op
	Path string
	// Source is the path in the revision's folder.
	Source string  `json:",omitempty"`
	Access *access `json:",omitempty"`
	Touch  *stamps `json:",omitempty"`
	// Before is what Undo makes true again.
	Before prior `json:",omitzero"`
}

// stamps are the times of a file after a touch and before it.
type stamps struct{ Time, Was time.Time }

// prior is what was at a path.
type prior struct {
	// Mode's type bits say file, symlink or directory; Exists false is none.
	Exists   bool        `json:",omitempty"`
	Mode     fs.FileMode `json:",omitempty"`
	UID, GID int
	Link     string            `json:",omitempty"`
	Attrs    map[string][]byte `json:",omitempty"`
}

// access is a permissions entry resolved to numbers; -1 and nil leave a thing.
type access struct {
	UID, GID int
	Mode     *uint32  `json:",omitempty"`
	ACL      *acl     `json:",omitempty"`
	Context  []string `json:",omitempty"` // arguments of chcon
}

func (r *Releases) planFile(app string) string { return r.app(app, "plan", "plan.json") }

// phaseFile is not there while the plan is only prepared.
func (r *Releases) phaseFile(app string) string { return r.app(app, "plan", "phase") }

func (r *Releases) backup(app string, i int) string {
	return r.app(app, "plan", "backup", strconv.Itoa(i))
}

// loadPlan returns the plan that is not settled, or nil.
func (r *Releases) loadPlan(app string) (*plan, error) {
	f, err := os.Open(r.planFile(app))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read install plan of %s: %w", app, err)
	}
	p, err := readPlan(bufio.NewReader(f))
	if err == nil {
		p.Phase, err = r.loadPhase(app)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read install plan of %s: %w", app, err)
	}
	return p, nil
}

// write writes the plan without its actions, then each of them: a whole text
// of a large one would take more memory than all else.
func (p *plan) write(w io.Writer) error {
	head := *p
	head.Actions = nil
	enc := json.NewEncoder(w)
	err := enc.Encode(head)
	for i := 0; err == nil && i < len(p.Actions); i++ {
		err = enc.Encode(p.Actions[i])
	}
	return err
}

func readPlan(r io.Reader) (*plan, error) {
	dec := json.NewDecoder(r)
	p := &plan{}
	if err := dec.Decode(p); err != nil {
		return nil, err
	}
	p.Actions = make([]action, 0, p.Count)
	for range p.Count {
		var a action
		if err := dec.Decode(&a); err != nil {
			return nil, err
		}
		p.Actions = append(p.Actions, a)
	}
	return p, nil
}

func (r *Releases) loadPhase(app string) (phase, error) {
	text, err := os.ReadFile(r.phaseFile(app))
	switch p := phase(text); {
	case errors.Is(err, fs.ErrNotExist):
		return phasePrepared, nil
	case err != nil:
		return "", err
	case p != phaseArmed && p != phaseDone:
		return "", fmt.Errorf("phase %q is neither %s nor %s", text, phaseArmed, phaseDone)
	default:
		return p, nil
	}
}

// prepare makes the plan durable, with nothing done yet.
func (r *Releases) prepare(app string, p *plan) error {
	err := os.RemoveAll(r.app(app, "plan")) // backups, and the phase, of a plan that was dropped
	if err == nil {
		err = durable.MkdirAll(r.app(app, "plan", "backup"), 0o700)
	}
	if err == nil {
		r.before("plan " + string(phasePrepared))
		p.Count = len(p.Actions)
		err = durable.WriteTo(r.planFile(app), 0o600, func(f io.Writer) error {
			w := bufio.NewWriter(f)
			return errors.Join(p.write(w), w.Flush())
		})
	}
	if err != nil {
		return fmt.Errorf("save install plan of %s: %w", app, err)
	}
	p.Phase = phasePrepared
	return nil
}

// enter makes the next phase of the plan durable.
func (r *Releases) enter(app string, p *plan, next phase) error {
	r.before("plan " + string(next))
	if err := durable.WriteFile(r.phaseFile(app), []byte(next), 0o600); err != nil {
		return fmt.Errorf("save phase of the install plan of %s: %w", app, err)
	}
	p.Phase = next
	return nil
}

// dropPlan forgets the plan, then its backups.
func (r *Releases) dropPlan(app string) error {
	if err := os.MkdirAll(r.app(app, "plan"), 0o700); err != nil {
		return fmt.Errorf("drop install plan: %w", err)
	}
	r.before("drop plan")
	if err := durable.Remove(r.planFile(app)); err != nil {
		return fmt.Errorf("drop install plan: %w", err)
	}
	r.before("drop backups")
	if err := os.RemoveAll(r.app(app, "plan")); err != nil {
		return fmt.Errorf("drop backups: %w", err)
	}
	return nil
}

// temporary is the name under which action i builds what it renames into
// place; fixed, so that whoever cleans up knows it.
func temporary(path string, i int) string {
	return join(filepath.Dir(path), ".groundswell-"+strconv.Itoa(i)+".tmp")
}
