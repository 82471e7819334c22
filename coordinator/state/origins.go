package state

import (
	"bytes"

	"github.com/groundswell/groundswell/deploy"
)

// OriginEnrolled gives an identity to the key of a machine that a third party
// vouches for, once for each machine; see MayEnrol. The same key and identity once
// more change nothing.
type OriginEnrolled struct {
	Origin   string // the machine, by who vouches for it: aws/ACCOUNT/REGION/INSTANCE
	Subject  string // agent/id
	Key      []byte // fingerprint
	Binds    *deploy.Attributes
	Says     *deploy.Attributes // of a host, about itself
	Instance string             // of its agent
	Address  string             // from which it was asked
}

func (OriginEnrolled) cluster() {}

// MayEnrol says why a machine gets no identity in this way, nil if it does: one
// that had one needs a token, by which a person says that it is the same still.
func (c *Cluster) MayEnrol(e OriginEnrolled) error {
	was, joined := c.Origins[e.Origin]
	switch is := c.Identities[was]; {
	case joined && is.Revoked != "":
		return refuse(deploy.Conflict, "%s was revoked by %s; it comes back with a token alone: "+
			"`dctl token create --host %s`", was, is.Revoked, c.called(was))
	case joined && (was != e.Subject || !bytes.Equal(is.Key, e.Key)):
		return refuse(deploy.Exists, "%s has enrolled already, as %s, and does so once; if its identity is lost, "+
			"`dctl token create --host %s`", e.Origin, was, c.called(was))
	case joined:
		return nil
	}
	return c.mayTake(Token{Role: "agent"}, TokenUsed{Subject: e.Subject, Key: e.Key})
}

// called is what a person calls the host of an identity by.
func (c *Cluster) called(identity string) string {
	if a := c.Identities[identity].Attributes; a != nil && a.Name != "" {
		return a.Name
	}
	return identity[len("agent/"):]
}

// OriginSubject is who the machine is already by this key, or "".
func (c *Cluster) OriginSubject(origin string, key []byte) string {
	if was := c.Origins[origin]; was != "" && bytes.Equal(c.Identities[was].Key, key) {
		return was
	}
	return ""
}

func (c *Cluster) enrolOrigin(e OriginEnrolled, at moment) error {
	if err := c.MayEnrol(e); err != nil {
		return err
	}
	if c.Origins[e.Origin] != "" {
		return nil
	}
	if c.Origins == nil {
		c.Origins = map[string]string{}
	}
	c.Origins[e.Origin] = e.Subject
	c.take(Token{Role: "agent", Maker: e.Origin, Binds: e.Binds},
		TokenUsed{Subject: e.Subject, Key: e.Key, Says: e.Says, Instance: e.Instance}, at)
	return nil
}
