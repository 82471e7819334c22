package state

import (
	"strings"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// Access is the document of who may do what. What it means is the coordinators'
// business; Apply knows who may change it, so that somebody always can.
type Access struct {
	Index   uint64   `json:"index"` // of its entry
	Source  string   `json:"source"`
	Admins  []string `json:"admins"` // who may change it; everyOperator is everybody
	Request string   `json:"request,omitempty"`
	Actor   string   `json:"actor,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Wall    int64    `json:"wall"`
}

// everyOperator stands for everybody in a list of admins.
const everyOperator = "*"

// AccessChanged replaces the document.
type AccessChanged struct {
	Request deploy.Request
	Source  string
	Admins  []string
	// Guarded refuses it unless the document in force has this index, 0 for none.
	Guarded bool
	Index   uint64
}

func (AccessChanged) cluster() {}

// StaleRights is the kind of a refusal that is no answer: who may do what has changed
// since this was allowed, and it has to be asked again.
const StaleRights deploy.RefusalKind = "stale_rights"

// AccessIndex is the index of the document in force, 0 for none.
func (c *Cluster) AccessIndex() uint64 {
	if c.Access == nil {
		return 0
	}
	return c.Access.Index
}

// allows refuses what another document than that in force has allowed.
func (c *Cluster) allows(by uint64) error {
	if by == 0 || by == c.AccessIndex()+1 {
		return nil
	}
	return refuse(StaleRights, "who may do what was changed while this was decided; try again")
}

// changeAccess is the one place where the order of changes is decided, and that
// somebody is left who may make the next.
func (c *Cluster) changeAccess(e AccessChanged, at moment) error {
	if c.asked(e) {
		return nil // twice
	}
	if e.Guarded && e.Index != c.AccessIndex() {
		return refuse(deploy.Conflict, "the access document has index %d, not %d: somebody else has changed it; "+
			"look at it again (`dctl access show`)", c.AccessIndex(), e.Index)
	}
	if !c.governs(e.Admins, "") {
		return refuse(deploy.Conflict, "nobody could change this document any more: of its admins (%s) none has a "+
			"credential that counts; see `dctl access list`", strings.Join(e.Admins, ", "))
	}
	c.Access = &Access{
		Index: at.index, Source: e.Source, Admins: e.Admins, Request: e.Request.ID, Actor: e.Request.Actor,
		Reason: e.Request.Reason, Wall: at.wall,
	}
	return nil
}

// asked reports whether the document in force is this request's.
func (c *Cluster) asked(e AccessChanged) bool {
	a := c.Access
	return a != nil && e.Request.ID != "" && a.Request == e.Request.ID && a.Source == e.Source
}

// governs reports whether one of the admins has a credential that counts, leaving one
// operator out.
func (c *Cluster) governs(admins []string, without string) bool {
	for _, name := range admins {
		if name == everyOperator {
			return c.anyOperator(without)
		}
		if name != without && c.lives("operator/"+name) {
			return true
		}
	}
	return false
}

func (c *Cluster) lives(identity string) bool {
	id, known := c.Identities[identity]
	return known && id.Revoked == ""
}

func (c *Cluster) anyOperator(without string) bool {
	for key := range c.Identities {
		if name, ok := strings.CutPrefix(key, "operator/"); ok && name != without && c.lives(key) {
			return true
		}
	}
	return false
}

func encodeAccess(e AccessChanged) *statev1.Event {
	return &statev1.Event{Fact: &statev1.Event_AccessChanged{AccessChanged: &statev1.AccessChanged{
		Request: encodeRequest(e.Request), Source: e.Source, Admins: e.Admins, Guarded: e.Guarded, Index: e.Index,
	}}}
}

func decodeAccess(e *statev1.AccessChanged) AccessChanged {
	return AccessChanged{
		Request: decodeRequest(e.Request), Source: e.Source, Admins: e.Admins, Guarded: e.Guarded, Index: e.Index,
	}
}
