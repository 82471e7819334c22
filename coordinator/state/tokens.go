package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// Token is a join token: the hash of its secret, never the secret. One that is
// used up stays until it ends, so that an answer that was lost can be given
// again to the key that it was for.
type Token struct {
	Hash  []byte             `json:"hash"`
	Role  string             `json:"role"`
	Name  string             `json:"name,omitempty"`  // of the operator that it makes
	Host  string             `json:"host,omitempty"`  // id of the known host that comes back with it
	Binds *deploy.Attributes `json:"binds,omitempty"` // what a host is that joins with it; see grant
	Maker string             `json:"maker,omitempty"`
	Ends  deploy.Time        `json:"ends"`
	Uses  int64              `json:"uses"`           // left
	Used  map[string]string  `json:"used,omitempty"` // key's fingerprint, hex, to role/id

	Revoked string `json:"revoked,omitempty"` // who closed it
	Before  string `json:"before,omitempty"`  // the CA that came to issue after it was made
}

// TokenCreated opens a join token for a time that is counted from its entry.
type TokenCreated struct {
	Request  deploy.Request
	ID, Role string
	Name     string             // of the operator that it makes
	Host     string             // id of the known host that comes back with it
	Binds    *deploy.Attributes // what a host is that joins with it; see grant
	Hash     []byte
	Life     int64 // nanoseconds of FSM time
	Uses     int64
}

// TokenUsed spends one use and gives an identity to a key; see MayUse. The same
// key, token and identity once more spend nothing.
type TokenUsed struct {
	ID       string
	Hash     []byte
	Role     string
	Subject  string             // role/id
	Key      []byte             // fingerprint
	Says     *deploy.Attributes // of a host, about itself
	Instance string             // of its agent
	Address  string             // from which it was asked
}

// TokenRevoked closes a token.
type TokenRevoked struct {
	Request deploy.Request
	ID      string
}

func (TokenCreated) cluster() {}
func (TokenUsed) cluster()    {}
func (TokenRevoked) cluster() {}

func (c *Cluster) openToken(e TokenCreated, at moment) error {
	if c.Tokens == nil {
		c.Tokens = map[string]Token{}
	}
	for id, t := range c.Tokens {
		if t.Ends < at.now {
			delete(c.Tokens, id)
		}
	}
	if _, ok := c.Tokens[e.ID]; ok {
		return refuse(deploy.Exists, "token %s exists already", e.ID)
	}
	c.Tokens[e.ID] = Token{
		Hash: e.Hash, Role: e.Role, Name: e.Name, Host: e.Host, Binds: e.Binds, Maker: e.Request.Actor,
		Ends: at.now + deploy.Time(e.Life), Uses: max(1, e.Uses),
	}
	return nil
}

// TokensFrom lists the tokens whose ids begin so, in order; "" begins none.
func (c *Cluster) TokensFrom(prefix string) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(c.Tokens)) {
		if prefix != "" && strings.HasPrefix(id, prefix) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *Cluster) revokeToken(e TokenRevoked) error {
	t, ok := c.Tokens[e.ID]
	if !ok {
		return refuse(deploy.NotFound, "no token %s; see `dctl token list`", e.ID)
	}
	t.Revoked = someone(e.Request.Actor)
	c.Tokens[e.ID] = t
	return nil
}

// MayUse says why a token cannot be used in this way at this time, nil if it
// can. It is what Apply asks; who asks before proposes nothing that would be
// dropped.
func (c *Cluster) MayUse(e TokenUsed, now deploy.Time) error {
	t, err := c.usable(e, now)
	if err != nil {
		return err
	}
	if t.Used[hex.EncodeToString(e.Key)] == e.Subject {
		return c.mayTake(t, e) // it asks again, and may have been revoked since
	}
	if t.Uses <= 0 {
		return refuse(deploy.Invalid, "the join token is used up; make a new one with `dctl token create`")
	}
	return c.mayTake(t, e)
}

// usable finds the token of who knows its secret.
func (c *Cluster) usable(e TokenUsed, now deploy.Time) (Token, error) {
	t, ok := c.Tokens[e.ID]
	switch {
	case !ok || t.Revoked != "" || t.Ends < now:
		return t, refuse(deploy.Invalid,
			"the join token is unknown, revoked or expired; make a new one with `dctl token create`")
	case subtle.ConstantTimeCompare(t.Hash, e.Hash) != 1:
		return t, refuse(deploy.Invalid, "the join token is wrong: its secret does not match; copy it again whole")
	case t.Role != e.Role:
		return t, refuse(deploy.Invalid,
			"the join token is for the role %s, not %s; make one with `dctl token create "+
				"--role %s`", t.Role, e.Role, e.Role)
	}
	return t, nil
}

// Subject finds whom a token would make of a key: for a known host, a person,
// and for who asks again, that is settled; else it is "".
func (c *Cluster) Subject(e TokenUsed, now deploy.Time) (string, error) {
	t, err := c.usable(e, now)
	switch {
	case err != nil:
		return "", err
	case t.Used[hex.EncodeToString(e.Key)] != "":
		return t.Used[hex.EncodeToString(e.Key)], nil
	case t.Host != "":
		return "agent/" + t.Host, nil
	case t.Role == "operator":
		return "operator/" + t.Name, nil
	}
	return "", nil
}

func (c *Cluster) useToken(e TokenUsed, at moment) error {
	if err := c.MayUse(e, at.now); err != nil {
		return err
	}
	t, key := c.Tokens[e.ID], hex.EncodeToString(e.Key)
	if t.Used[key] == e.Subject {
		return nil
	}
	if t.Used == nil {
		t.Used = map[string]string{}
	}
	t.Used[key] = e.Subject
	t.Uses--
	c.Tokens[e.ID] = t
	c.take(t, e, at)
	return nil
}

// MadeBy returns the open tokens that a person made, and the operators that came by
// tokens of it and still count, both in order. Of others it is nothing.
func (c *Cluster) MadeBy(identity string) (tokens, people []string) {
	name, person := strings.CutPrefix(identity, "operator/")
	if !person {
		return nil, nil
	}
	for _, id := range slices.Sorted(maps.Keys(c.Tokens)) {
		if t := c.Tokens[id]; t.Maker == name && t.Revoked == "" {
			tokens = append(tokens, id)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.Identities)) {
		is, ok := strings.CutPrefix(key, "operator/")
		if id := c.Identities[key]; ok && id.Maker == name && id.Revoked == "" && is != name {
			people = append(people, is)
		}
	}
	return tokens, people
}

// HashToken returns what the log holds of a token's secret.
func HashToken(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}
