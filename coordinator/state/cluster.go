package state

import (
	"fmt"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/deploy"
)

// Cluster is the replicated state of the coordinators themselves: who they
// are, what CA they trust, which join tokens are open, whose every identity is.
// It holds no key, only fingerprints.
type Cluster struct {
	ID           string                   `json:"id"`
	CA           []byte                   `json:"ca"` // certificates that are trusted, PEM, the issuing one first
	Coordinators map[string]Coordinator   `json:"coordinators,omitempty"`
	Tokens       map[string]Token         `json:"tokens,omitempty"`
	Identities   map[string]Identity      `json:"identities,omitempty"`  // by role/id
	BreakGlass   map[string]BreakGlassUse `json:"break_glass,omitempty"` // by the key's fingerprint, hex
	Origins      map[string]string        `json:"origins,omitempty"`     // of machines, to role/id; see OriginEnrolled
	// Ended counts how often a key lost its identity: who serves must look then
	// whom it serves.
	Ended uint64 `json:"ended,omitempty"`
	// Epoch counts the lives of the cluster: it rises when a majority was lost or
	// a backup restored. Held is why it only observes, until a person activates it.
	Epoch uint64 `json:"epoch"`
	Held  string `json:"held,omitempty"`
	// NextCA is brought in: it is trusted, and issues once every coordinator has
	// its key. Its predecessor is trusted until it is retired.
	NextCA     string `json:"next_ca,omitempty"`
	NextIssues bool   `json:"next_issues,omitempty"`
	// RingKey is the gossip ring's, by hash; "" the one of before any replacement.
	// NextRingKey is brought in: it is taken, and once used, its predecessor is for a
	// while. RingKeyDue says that somebody knows it who should not any more.
	RingKey     string `json:"ring_key,omitempty"`
	NextRingKey string `json:"next_ring_key,omitempty"`
	RingKeyUsed bool   `json:"ring_key_used,omitempty"`
	RingKeyDue  bool   `json:"ring_key_due,omitempty"`
	// Access is who may do what; nil where nobody has said it.
	Access *Access `json:"access,omitempty"`
	// Audit is who asked for what, and what came of it.
	Audit audit.Log `json:"audit,omitzero"`
}

// Coordinator is one member as it announced itself.
type Coordinator struct {
	Name   string `json:"name"`
	Raft   string `json:"raft"`
	API    string `json:"api"`
	Agent  string `json:"agent"`
	Gossip string `json:"gossip"`
	Rules  int    `json:"rules"`          // highest level that its build knows
	CA     string `json:"ca,omitempty"`   // of a CA that is brought in: it holds the key
	Ring   string `json:"ring,omitempty"` // of a ring's key that is brought in: it holds that
}

// ClusterEvent is a fact about the cluster itself.
type ClusterEvent interface{ cluster() }

// ClusterCreated starts a cluster, once.
type ClusterCreated struct {
	ID       string
	CA       []byte
	Founders []Founder
}

// Founder is an identity that bootstrap made.
type Founder struct {
	Identity string // role/id
	Key      []byte
}

// CoordinatorJoined records a member's addresses; a repeated one updates them.
type CoordinatorJoined Coordinator

// CoordinatorRemoved forgets a member: its certificate counts no more, and its
// name is free for a newcomer with a token.
type CoordinatorRemoved struct {
	Request deploy.Request
	Name    string
}

func (ClusterCreated) cluster()     {}
func (CoordinatorJoined) cluster()  {}
func (CoordinatorRemoved) cluster() {}

func refuse(k deploy.RefusalKind, format string, args ...any) error {
	return &deploy.Refusal{Reason: k, Text: fmt.Sprintf(format, args...)}
}

// moment is when an entry was made: FSM time, which expiry is counted in, wall time,
// which people are shown and nothing is compared with, as the state has it, which never
// steps back, and by the clock of who led; and its index.
type moment struct {
	now   deploy.Time
	wall  int64
	clock int64
	index uint64
}

func (c *Cluster) apply(e ClusterEvent, at moment) error {
	switch e := e.(type) {
	case ClusterCreated:
		return c.create(e, at)
	case CoordinatorJoined:
		if c.Coordinators == nil {
			c.Coordinators = map[string]Coordinator{}
		}
		c.Coordinators[e.Name] = Coordinator(e)
	case CoordinatorRemoved:
		return c.remove(e)
	case EpochBegun:
		c.beginEpoch(e, at)
	case EpochActivated:
		return c.activate(e)
	case TokenCreated:
		return c.openToken(e, at)
	case TokenUsed:
		return c.useToken(e, at)
	case OriginEnrolled:
		return c.enrolOrigin(e, at)
	case TokenRevoked:
		return c.revokeToken(e)
	case PersonConfirmed:
		return c.confirm(e)
	case AttributesApproved:
		return c.approve(e)
	case InstanceBegan:
		return c.begin(e)
	case InstanceCleared:
		return c.cleared(e)
	case HostCloned:
		return c.cloned(e)
	case HostSplit:
		return c.split(e)
	case SplitEnrolled:
		return c.splitOff(e, at)
	case IdentityRevoked:
		return c.revoke(e)
	case BreakGlassUsed:
		c.breakGlass(e, at)
	case CAAdded:
		return c.addCA(e)
	case CAIssues:
		return c.issueBy(e)
	case CARetired:
		return c.retireCA(e)
	case RingKeyAdded:
		return c.addRingKey(e)
	case RingKeyUsed:
		return c.useRingKey(e)
	case RingKeyRetired:
		return c.retireRingKeys(e)
	case AccessChanged:
		return c.changeAccess(e, at)
	case RequestsRefused:
		c.refused(e, at)
	case AuditExported:
		c.Audit.Export(e.Upto)
	}
	return nil
}

func (c *Cluster) create(e ClusterCreated, at moment) error {
	if c.ID != "" {
		return refuse(deploy.Exists, "the cluster exists already")
	}
	c.ID, c.CA, c.Identities, c.Epoch = e.ID, e.CA, map[string]Identity{}, 1
	for _, f := range e.Founders {
		c.Identities[f.Identity] = Identity{Key: f.Key, Wall: at.wall}
	}
	return nil
}

func (c *Cluster) remove(e CoordinatorRemoved) error {
	_, joined := c.Coordinators[e.Name]
	if _, known := c.Identities["coordinator/"+e.Name]; !joined && !known {
		return refuse(deploy.NotFound, "%s is no coordinator of this cluster", e.Name)
	}
	delete(c.Coordinators, e.Name)
	c.setRevoked("coordinator/"+e.Name, e.Request.Actor)
	return nil
}
