package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// Cluster is the replicated state of the coordinators themselves: who they
// are, what CA they trust, which join tokens are open. It holds no key.
type Cluster struct {
	ID           string                 `json:"id"`
	CA           []byte                 `json:"ca"` // certificates, PEM
	Coordinators map[string]Coordinator `json:"coordinators,omitempty"`
	Tokens       map[string]Token       `json:"tokens,omitempty"`
}

// Coordinator is one member as it announced itself.
type Coordinator struct {
	Name   string `json:"name"`
	Raft   string `json:"raft"`
	API    string `json:"api"`
	Agent  string `json:"agent"`
	Gossip string `json:"gossip"`
	Rules  int    `json:"rules"` // highest level that its build knows
}

// Token is an open join token: the hash of its secret, never the secret.
type Token struct {
	Hash    []byte `json:"hash"`
	Role    string `json:"role"`
	Name    string `json:"name,omitempty"` // of the operator that it makes
	Expires int64  `json:"expires"`        // wall, milliseconds
	Uses    int64  `json:"uses"`           // left
}

// ClusterEvent is a fact about the cluster itself.
type ClusterEvent interface{ cluster() }

// ClusterCreated starts a cluster, once.
type ClusterCreated struct {
	ID string
	CA []byte
}

// CoordinatorJoined records a member's addresses; a repeated one updates them.
type CoordinatorJoined Coordinator

// TokenCreated opens a join token.
type TokenCreated struct {
	ID, Role string
	Name     string // of the operator that it makes
	Hash     []byte
	Expires  int64
	Uses     int64
}

// TokenUsed spends one use; it is refused when the token is unknown, expired
// at the entry's wall time, used up, or its hash differs.
type TokenUsed struct {
	ID      string
	Hash    []byte
	Role    string
	Subject string
}

func (ClusterCreated) cluster()    {}
func (CoordinatorJoined) cluster() {}
func (TokenCreated) cluster()      {}
func (TokenUsed) cluster()         {}

func refuse(k deploy.RefusalKind, format string, args ...any) error {
	return &deploy.Refusal{Reason: k, Text: fmt.Sprintf(format, args...)}
}

func (c *Cluster) apply(e ClusterEvent, wall int64) error {
	switch e := e.(type) {
	case ClusterCreated:
		if c.ID != "" {
			return refuse(deploy.Exists, "the cluster exists already")
		}
		c.ID, c.CA = e.ID, e.CA
	case CoordinatorJoined:
		if c.Coordinators == nil {
			c.Coordinators = map[string]Coordinator{}
		}
		c.Coordinators[e.Name] = Coordinator(e)
	case TokenCreated:
		if c.Tokens == nil {
			c.Tokens = map[string]Token{}
		}
		for id, t := range c.Tokens {
			if t.Expires < wall {
				delete(c.Tokens, id)
			}
		}
		c.Tokens[e.ID] = Token{Hash: e.Hash, Role: e.Role, Name: e.Name, Expires: e.Expires, Uses: max(1, e.Uses)}
	case TokenUsed:
		return c.useToken(e, wall)
	}
	return nil
}

func (c *Cluster) useToken(e TokenUsed, wall int64) error {
	t, ok := c.Tokens[e.ID]
	switch {
	case !ok:
		return refuse(deploy.Invalid, "the join token is unknown, used up or expired; make a new one with `dctl token create`")
	case t.Expires < wall:
		return refuse(deploy.Invalid, "the join token has expired; make a new one with `dctl token create`")
	case subtle.ConstantTimeCompare(t.Hash, e.Hash) != 1:
		return refuse(deploy.Invalid, "the join token is wrong: its secret does not match; copy it again whole")
	case t.Role != e.Role:
		return refuse(deploy.Invalid, "the join token is for the role %s, not %s; make one with `dctl token create --role %s`", t.Role, e.Role, e.Role)
	}
	t.Uses--
	if t.Uses <= 0 {
		delete(c.Tokens, e.ID)
	} else {
		c.Tokens[e.ID] = t
	}
	return nil
}

// HashToken returns what the log holds of a token's secret.
func HashToken(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

func encodeCluster(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case ClusterCreated:
		return &statev1.Event{Fact: &statev1.Event_ClusterCreated{ClusterCreated: &statev1.ClusterCreated{Id: e.ID, CaPem: e.CA}}}
	case CoordinatorJoined:
		return &statev1.Event{Fact: &statev1.Event_CoordinatorJoined{CoordinatorJoined: &statev1.CoordinatorJoined{
			Name: e.Name, RaftAddress: e.Raft, ApiAddress: e.API, AgentAddress: e.Agent, GossipAddress: e.Gossip,
			Rules: int64(e.Rules),
		}}}
	case TokenCreated:
		return &statev1.Event{Fact: &statev1.Event_TokenCreated{TokenCreated: &statev1.TokenCreated{
			Id: e.ID, Hash: e.Hash, Role: e.Role, ExpiresMs: e.Expires, Uses: e.Uses, Name: e.Name,
		}}}
	case TokenUsed:
		return &statev1.Event{Fact: &statev1.Event_TokenUsed{TokenUsed: &statev1.TokenUsed{
			Id: e.ID, Hash: e.Hash, Role: e.Role, Subject: e.Subject,
		}}}
	}
	return &statev1.Event{}
}

// decodeCluster returns nil for facts of deployments.
func decodeCluster(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_ClusterCreated:
		return ClusterCreated{ID: f.ClusterCreated.Id, CA: f.ClusterCreated.CaPem}
	case *statev1.Event_CoordinatorJoined:
		e := f.CoordinatorJoined
		return CoordinatorJoined{
			Name: e.Name, Raft: e.RaftAddress, API: e.ApiAddress, Agent: e.AgentAddress, Gossip: e.GossipAddress, Rules: int(e.Rules),
		}
	case *statev1.Event_TokenCreated:
		e := f.TokenCreated
		return TokenCreated{ID: e.Id, Hash: e.Hash, Role: e.Role, Name: e.Name, Expires: e.ExpiresMs, Uses: e.Uses}
	case *statev1.Event_TokenUsed:
		e := f.TokenUsed
		return TokenUsed{ID: e.Id, Hash: e.Hash, Role: e.Role, Subject: e.Subject}
	}
	return nil
}
