package state

import "github.com/groundswell/groundswell/deploy"

// CAAdded begins the replacement of the CA: a new one is trusted beside the one
// that issues. Its key is with the proposer, and goes from coordinator to
// coordinator outside of the log.
type CAAdded struct {
	Request deploy.Request
	ID      string
	CA      []byte // every certificate that is trusted now, PEM, the issuing one first
}

// CAIssues makes the new CA the one that issues. Whoever proposes it has seen
// that every coordinator holds its key.
type CAIssues struct {
	ID string
	CA []byte
}

// CARetired ends the trust in the CA that does not issue: the old one, or a new
// one that was given up.
type CARetired struct {
	Request deploy.Request
	ID      string
	CA      []byte
}

func (CAAdded) cluster()   {}
func (CAIssues) cluster()  {}
func (CARetired) cluster() {}

func (c *Cluster) addCA(e CAAdded) error {
	if c.NextCA != "" {
		return refuse(deploy.Conflict, "CA %s is being brought in already; see `dctl cluster ca status`", c.NextCA)
	}
	c.NextCA, c.NextIssues, c.CA = e.ID, false, e.CA
	return nil
}

func (c *Cluster) issueBy(e CAIssues) error {
	if c.NextCA != e.ID || c.NextIssues {
		return refuse(deploy.Conflict, "CA %s is not waiting to issue", e.ID)
	}
	c.NextIssues, c.CA = true, e.CA
	for id, t := range c.Tokens {
		t.Before = e.ID
		c.Tokens[id] = t
	}
	return nil
}

func (c *Cluster) retireCA(e CARetired) error {
	if c.NextCA == "" || c.NextIssues == (e.ID == c.NextCA) {
		return refuse(deploy.Conflict, "no CA but the issuing one is trusted, or it was decided meanwhile; "+
			"see `dctl cluster ca status`")
	}
	for id, t := range c.Tokens { // those of the CA that is trusted no more
		if c.NextIssues && t.Before == c.NextCA && t.Revoked == "" {
			t.Revoked = someone(e.Request.Actor)
			c.Tokens[id] = t
		}
	}
	c.NextCA, c.NextIssues, c.CA = "", false, e.CA
	c.Ended++ // who holds nothing but a certificate of it has no identity any more
	return nil
}
