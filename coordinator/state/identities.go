package state

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// Identity is whom a key belongs to. One identity has one key: certificates of
// it with any other are refused.
type Identity struct {
	Key       []byte `json:"key"`                 // fingerprint
	Maker     string `json:"maker,omitempty"`     // who made its token; "" for founders
	Confirmed string `json:"confirmed,omitempty"` // who vouches for a person, beside the maker
	Revoked   string `json:"revoked,omitempty"`   // who ended it
	Wall      int64  `json:"wall"`
	// Attributes are what a host is. They outlive its departure: who was away
	// comes back as what it was. Approved counts how often a person set them.
	Attributes *deploy.Attributes `json:"attributes,omitempty"`
	Approved   uint64             `json:"approved,omitempty"`
	// Machine is who speaks for a host now, Clone two at once, Split the instances
	// that a person split off it, and whom they became.
	Machine
	Cleared bool              `json:"cleared,omitempty"` // no other was found alive since it began
	Clone   *Clone            `json:"clone,omitempty"`
	Split   map[string]string `json:"split,omitempty"`
}

// AttributesApproved changes what a host is, by a person, who had read what it
// was after so many such changes but one.
type AttributesApproved struct {
	Request    deploy.Request
	Host       string // id
	Attributes deploy.Attributes
	Approved   uint64
}

// BreakGlassUse is the first use of a credential that was made on a
// coordinator's own machine.
type BreakGlassUse struct {
	Name        string `json:"name"`
	Coordinator string `json:"coordinator"`
	Revoked     string `json:"revoked,omitempty"`
	Wall        int64  `json:"wall"`
}

// BreakGlassPerson is who a break-glass credential counts as. It is no name
// that anybody can have.
const BreakGlassPerson = "(break-glass)"

// PersonConfirmed says that a second person vouches for an operator. A
// break-glass credential may, by BreakGlassPerson in its request: who holds a
// coordinator's machine could be anybody anyway.
type PersonConfirmed struct {
	Request deploy.Request
	Name    string
}

// IdentityRevoked ends an identity: every certificate of it counts no more.
type IdentityRevoked struct {
	Request  deploy.Request
	Identity string // role/id
}

// BreakGlassUsed records the first use of a break-glass credential.
type BreakGlassUsed struct {
	Name        string
	Key         []byte
	Coordinator string
}

func (AttributesApproved) cluster() {}
func (PersonConfirmed) cluster()    {}
func (IdentityRevoked) cluster()    {}
func (BreakGlassUsed) cluster()     {}

// mayTake says why a token gives no identity to a key: nobody makes one that
// exists, but its own key comes back, and a host for which a token was made.
func (c *Cluster) mayTake(t Token, e TokenUsed) error {
	role, name, _ := strings.Cut(e.Subject, "/")
	if role != t.Role || t.Host != "" && name != t.Host || role == "operator" && name != t.Name {
		return refuse(deploy.Invalid, "the join token is not for %s", e.Subject)
	}
	old, known := c.Identities[e.Subject]
	switch {
	case known && old.Revoked != "" && bytes.Equal(old.Key, e.Key):
		return refuse(deploy.Conflict, "the key of %s was revoked; make another one", e.Subject)
	case !known, old.Revoked != "", bytes.Equal(old.Key, e.Key), t.Host != "":
		return nil
	case role == "coordinator":
		return refuse(deploy.Exists, "%s is a member of the cluster already; a new coordinator needs another --name, "+
			"or `dctl cluster remove %s` first", e.Subject, name)
	}
	return refuse(deploy.Exists, "%s has a credential, and nobody else's key gets its name; "+
		"if it is lost, `dctl access revoke %s` first", e.Subject, name)
}

func (c *Cluster) take(t Token, e TokenUsed, at moment) {
	if c.Identities == nil {
		c.Identities = map[string]Identity{}
	}
	old, known := c.Identities[e.Subject]
	id := old
	if !known || old.Revoked != "" || t.Role != "operator" {
		id = Identity{Maker: t.Maker, Wall: at.wall}
	}
	if bytes.Equal(old.Key, e.Key) { // copies of a former key count no more, of this one they do
		id.Machine, id.Cleared, id.Clone, id.Split = old.Machine, old.Cleared, old.Clone, old.Split
	}
	if known && !bytes.Equal(old.Key, e.Key) {
		c.Ended++
	}
	id.Key = e.Key
	if t.Role == "agent" {
		id.Attributes, id.Approved = t.grant(old.Attributes, e.Says), old.Approved
		if id.Instance == "" {
			id.Instance, id.Cleared = e.Instance, true // nobody else has the key
		}
	}
	c.Identities[e.Subject] = id
}

// grant says what a host is that joins with a token: what the token binds; else
// what it was before; else what it says itself. A token that binds labels binds
// all of them.
func (t Token) grant(was, says *deploy.Attributes) *deploy.Attributes {
	var out deploy.Attributes
	switch {
	case was != nil:
		out = *was
	case says != nil:
		out = *says
	}
	if b := t.Binds; b != nil {
		out.Name, out.Zone = cmp.Or(b.Name, out.Name), cmp.Or(b.Zone, out.Zone)
		out.Region = cmp.Or(b.Region, out.Region)
		if len(b.Labels) > 0 {
			out.Labels = b.Labels
		}
	}
	return &out
}

// HostAttributes returns what the host is, and how often a person has set that;
// nil for one of which nothing is written down.
func (c *Cluster) HostAttributes(host string) (*deploy.Attributes, uint64) {
	id := c.Identities["agent/"+host]
	return id.Attributes, id.Approved
}

// HostsNamed returns the ids of hosts that have an identity and are called so, or
// the id itself, in order.
func (c *Cluster) HostsNamed(name string) (ids []string) {
	for _, key := range slices.Sorted(maps.Keys(c.Identities)) {
		id, ok := strings.CutPrefix(key, "agent/")
		if is := c.Identities[key]; ok && (id == name || is.Attributes != nil && is.Attributes.Name == name &&
			is.Revoked == "") {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *Cluster) approve(e AttributesApproved) error {
	id := c.Identities["agent/"+e.Host]
	if e.Approved != id.Approved+1 {
		return refuse(deploy.Conflict, "somebody else has changed what host %s is; look at it again", e.Attributes.Name)
	}
	id.Attributes, id.Approved = &e.Attributes, e.Approved
	c.setIdentity("agent/"+e.Host, id)
	return nil
}

// Owner reports whether an identity that counts belongs to the key.
func (c *Cluster) Owner(identity string, key []byte) bool {
	id, ok := c.Identities[identity]
	return ok && id.Revoked == "" && bytes.Equal(id.Key, key)
}

// Revoked returns who revoked the identity, if it was this key's; "" nobody.
func (c *Cluster) Revoked(identity string, key []byte) string {
	if id := c.Identities[identity]; len(id.Key) == 0 || bytes.Equal(id.Key, key) {
		return id.Revoked
	}
	return ""
}

// Admits says why a certificate that the CA signed is not let in, nil if it is.
// One of which nothing is known is: this replica may lag behind, and a cluster
// that was restored from a backup knows its newest members no more.
func (c *Cluster) Admits(identity string, key []byte, breakGlass bool) error {
	if breakGlass {
		if use := c.BreakGlass[hex.EncodeToString(key)]; use.Revoked != "" {
			return refuse(deploy.Conflict, "this break-glass credential was revoked by %s", use.Revoked)
		}
		return nil
	}
	id := c.Identities[identity]
	switch {
	case id.Revoked != "":
		return refuse(deploy.Conflict, "%s was revoked by %s; %s", identity, id.Revoked, anew(identity))
	case id.Clone != nil:
		return id.Clone.refusal()
	case len(id.Key) > 0 && !bytes.Equal(id.Key, key):
		return refuse(deploy.Conflict, "%s has another key by now, this one counts no more; %s", identity,
			anew(identity))
	}
	return nil
}

// anew says how the owner of an identity comes back whose key counts no more.
func anew(identity string) string {
	how := "a token that was made for its name brings in a new key"
	if strings.HasPrefix(identity, "agent/") {
		how += ", which its agent makes once its identity folder is removed"
	}
	return how
}

// Person returns who an operator counts as where two people are asked for:
// until somebody else has confirmed it, an identity is its maker. Those who
// made each other in a circle are one.
func (c *Cluster) Person(name string) string {
	var seen []string
	for {
		if i := slices.Index(seen, name); i >= 0 {
			return slices.Min(seen[i:])
		}
		id := c.Identities["operator/"+name]
		if id.Maker == "" || id.Confirmed != "" {
			return name
		}
		seen = append(seen, name)
		name = id.Maker
	}
}

func (c *Cluster) confirm(e PersonConfirmed) error {
	key := "operator/" + e.Name
	id, ok := c.Identities[key]
	switch {
	case !ok || id.Revoked != "":
		return refuse(deploy.NotFound, "no operator %s; see `dctl access list`", e.Name)
	case id.Confirmed == e.Request.Actor:
		return nil // asked twice
	case id.Maker == "" || id.Confirmed != "":
		return refuse(deploy.Exists, "%s counts as a person already", e.Name)
	case e.Request.Person != BreakGlassPerson && c.Person(e.Request.Actor) == c.Person(e.Name):
		return refuse(deploy.Conflict,
			"%s counts as %s, as %s does: somebody else must confirm, or a break-glass credential "+
				"(`dcoord operator`, on a coordinator's own machine)", e.Request.Actor, c.Person(e.Name), e.Name)
	}
	id.Confirmed = e.Request.Actor
	c.Identities[key] = id
	return nil
}

// keepsAdmin says why an identity cannot be revoked: nobody could change who may do
// what without it.
func (c *Cluster) keepsAdmin(identity string) error {
	role, name, _ := strings.Cut(identity, "/")
	if role == "operator" && c.Access != nil && c.governs(c.Access.Admins, "") && !c.governs(c.Access.Admins, name) {
		return refuse(deploy.Conflict, "%s is the last who may change who may do what; give that to somebody else first "+
			"(`dctl access apply`)", name)
	}
	return nil
}

// MayRevoke says why an identity cannot be revoked now; Apply decides it again.
func (c *Cluster) MayRevoke(identity string) error {
	if c.Identities[identity].Revoked != "" {
		return nil
	}
	return c.keepsAdmin(identity)
}

func (c *Cluster) revoke(e IdentityRevoked) error {
	role, name, _ := strings.Cut(e.Identity, "/")
	if role == "coordinator" {
		return refuse(deploy.Invalid, "a coordinator holds the CA's key, so its certificate is the least of it: "+
			"`dctl cluster remove %s`, then rotate the CA", name)
	}
	if c.Identities[e.Identity].Revoked != "" {
		return nil
	}
	if err := c.keepsAdmin(e.Identity); err != nil {
		return err
	}
	c.setRevoked(e.Identity, e.Request.Actor)
	for key, use := range c.BreakGlass {
		if role == "operator" && use.Name == name && use.Revoked == "" {
			use.Revoked = e.Request.Actor
			c.BreakGlass[key] = use
		}
	}
	return nil
}

// setRevoked marks an identity, one of which nothing is known too.
func (c *Cluster) setRevoked(identity, who string) {
	if c.Identities == nil {
		c.Identities = map[string]Identity{}
	}
	id := c.Identities[identity]
	id.Revoked = someone(who)
	if !strings.HasPrefix(identity, "operator/") {
		c.RingKeyDue = true
	}
	c.Identities[identity] = id
	c.Ended++
}

// someone is a name that is never empty.
func someone(actor string) string { return cmp.Or(actor, "a coordinator") }

// BreakGlassKnown reports whether the use of a break-glass credential is
// recorded.
func (c *Cluster) BreakGlassKnown(key []byte) bool {
	_, known := c.BreakGlass[hex.EncodeToString(key)]
	return known
}

func (c *Cluster) breakGlass(e BreakGlassUsed, at moment) {
	if c.BreakGlass == nil {
		c.BreakGlass = map[string]BreakGlassUse{}
	}
	key := hex.EncodeToString(e.Key)
	if _, known := c.BreakGlass[key]; !known {
		c.BreakGlass[key] = BreakGlassUse{Name: e.Name, Coordinator: e.Coordinator, Wall: at.wall}
	}
}
