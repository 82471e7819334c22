package release

import (
	"encoding/json"
	"errors"
	"fmt"
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
	Phase    phase
	Actions  []action
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
	// Time and Was are the times of a touch, before and after.
	Time time.Time `json:",omitzero"`
	Was  time.Time `json:",omitzero"`
	// Before is what Undo makes true again.
	Before prior

	size int64 // of what is copied, while it is planned
}

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

func (r *Releases) backup(app string, i int) string {
	return r.app(app, "plan", "backup", strconv.Itoa(i))
}

// loadPlan returns the plan that is not settled, or nil.
func (r *Releases) loadPlan(app string) (*plan, error) {
	data, err := os.ReadFile(r.planFile(app))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var p plan
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("read install plan of %s: %w", app, err)
	}
	return &p, nil
}

func (r *Releases) savePlan(app string, p *plan) error {
	data, err := json.Marshal(p)
	if err == nil && p.Phase == phasePrepared { // backups whose plan was dropped
		err = os.RemoveAll(r.app(app, "plan"))
	}
	if err == nil {
		err = durable.MkdirAll(r.app(app, "plan", "backup"), 0o700)
	}
	if err == nil {
		r.point("plan " + string(p.Phase))
		err = durable.WriteFile(r.planFile(app), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save install plan of %s: %w", app, err)
	}
	return nil
}

// dropPlan forgets the plan, then its backups.
func (r *Releases) dropPlan(app string) error {
	if err := os.MkdirAll(r.app(app, "plan"), 0o700); err != nil {
		return fmt.Errorf("drop install plan: %w", err)
	}
	r.point("drop plan")
	if err := durable.Remove(r.planFile(app)); err != nil {
		return fmt.Errorf("drop install plan: %w", err)
	}
	r.point("drop backups")
	if err := os.RemoveAll(r.app(app, "plan")); err != nil {
		return fmt.Errorf("drop backups: %w", err)
	}
	return nil
}

// temporary is the name under which action i builds what it renames into
// place; fixed, so that whoever cleans up knows it.
func temporary(path string, i int) string {
	return filepath.Join(filepath.Dir(path), ".groundswell-"+strconv.Itoa(i)+".tmp")
}
