package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/groundswell/groundswell/coordinator/audit"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// AuditRules is the level of the rules of the log from which on requests are recorded
// with their effect.
const AuditRules = 4

// RequestsRefused records requests that were refused before they made an entry.
type RequestsRefused struct{ Items []audit.Asked }

// AuditExported says that the files of a coordinator have the audit up to a record.
type AuditExported struct {
	Coordinator string
	Upto        uint64
}

func (RequestsRefused) cluster() {}
func (AuditExported) cluster()   {}

func (c *Cluster) refused(e RequestsRefused, at moment) {
	for _, asked := range e.Items {
		c.Audit.Add(audit.Record{Index: at.index, At: at.clock, Asked: asked})
	}
}

// recorded applies the facts of an entry by f, and puts into the audit what came of them.
// What a person asked for is one record; a repetition of what was recorded is none. Of
// what nobody's session asked for, facts about credentials and rights make their own.
func (s *Store) recorded(e Entry, index uint64, f func() []error) []error {
	if s.state.Rules < AuditRules {
		return f()
	}
	var records []audit.Asked
	var of []int // the fact that each is of; -1 all
	again := e.Asked != nil && s.repeats(e)
	for i, c := range e.Cluster {
		if r, ok := s.cluster.own(c); ok && e.Asked == nil {
			records, of = append(records, r), append(of, len(e.Events)+i)
		}
	}
	if e.Asked != nil && !again {
		records, of = append(records, *e.Asked), append(of, -1)
	}
	refusals := f()
	for i, r := range records {
		about := refusals
		if of[i] >= 0 {
			about = refusals[of[i] : of[i]+1]
		}
		r.Outcome, r.Said = outcome(about)
		s.cluster.Audit.Add(audit.Record{Index: index, At: e.Wall, Asked: r})
	}
	return refusals
}

// outcome is what became of facts that one request asked for.
func outcome(refusals []error) (outcome, said string) {
	var first error
	n := 0
	for _, err := range refusals {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return audit.OK, ""
	}
	kind := "refused"
	var k interface{ Kind() string }
	if errors.As(first, &k) {
		kind = k.Kind()
	}
	if n < len(refusals) {
		kind = audit.Partly + kind
	}
	return kind, audit.Asked{Said: first.Error()}.Cleaned().Said
}

// repeats reports whether every fact of an entry changes nothing because the same request
// was made before, whose record is in the audit.
func (s *Store) repeats(e Entry) bool {
	for _, ev := range e.Events {
		if !s.state.Repeats(ev) {
			return false
		}
	}
	for _, c := range e.Cluster {
		if !s.cluster.repeats(c) {
			return false
		}
	}
	return s.cluster.Audit.Recorded(e.Asked.Request)
}

// repeats reports whether a fact says what is so already. Facts that always change
// something, or are refused the second time, never do.
func (c *Cluster) repeats(e ClusterEvent) bool {
	switch e := e.(type) {
	case AccessChanged:
		return c.asked(e)
	case TokenRevoked:
		return c.Tokens[e.ID].Revoked != ""
	case PersonConfirmed:
		return e.Request.Actor != "" && c.Identities["operator/"+e.Name].Confirmed == e.Request.Actor
	case IdentityRevoked:
		return c.Identities[e.Identity].Revoked != ""
	case EpochActivated:
		return e.Epoch == c.Epoch && c.Held == ""
	case TokenUsed:
		return c.Tokens[e.ID].Used[hex.EncodeToString(e.Key)] == e.Subject && c.Owner(e.Subject, e.Key)
	case OriginEnrolled:
		return c.OriginSubject(e.Origin, e.Key) == e.Subject
	case SplitEnrolled:
		became, err := c.SplitID(e.Host, e.Instances, e.Key)
		return err == nil && became != ""
	case BreakGlassUsed:
		return c.BreakGlassKnown(e.Key)
	case EpochBegun:
		return e.Epoch <= c.Epoch
	}
	return false
}

// own is the record of a fact about credentials, rights and members that no person's
// request made: who joined, by whose word, and what coordinators did by themselves. These
// texts are part of the chain: they are rules of the log.
func (c *Cluster) own(e ClusterEvent) (r audit.Asked, ok bool) {
	if c.repeats(e) {
		return r, false
	}
	switch e := e.(type) {
	case TokenUsed:
		r = audit.Asked{Actor: e.Subject, Address: e.Address, Verb: "enrol", What: "Enrol token=" + e.ID}
		if maker := c.Tokens[e.ID].Maker; maker != "" {
			r.What += " made_by=" + maker
		}
	case OriginEnrolled:
		r = audit.Asked{Actor: e.Subject, Address: e.Address, Verb: "enrol", What: "Enrol origin=" + e.Origin}
	case SplitEnrolled:
		r = audit.Asked{
			Actor: "agent/" + e.ID, Address: e.Address, Verb: "enrol",
			What: "Split host=" + e.Host + " name=" + e.Name,
		}
	case BreakGlassUsed:
		r = audit.Asked{
			Actor: "break-glass/" + e.Name, Verb: "break-glass",
			What: "first use, at " + e.Coordinator + ", of the key " + hex.EncodeToString(e.Key),
		}
	case EpochBegun:
		r = audit.Asked{
			Actor: "coordinator/" + e.Coordinator, Verb: "epoch", Reason: e.Reason,
			What: fmt.Sprintf("epoch %d begins behind record %d", e.Epoch, c.Audit.Seq),
		}
	case AccessChanged:
		r = audit.Asked{
			Actor: "coordinator/" + e.Request.Actor, Verb: "access", What: "ApplyAccess", Reason: e.Request.Reason,
		}
	case CoordinatorRemoved:
		r = audit.Asked{
			Actor: "coordinator/" + e.Request.Actor, Verb: "cluster", What: "RemoveCoordinator name=" + e.Name,
			Reason: e.Request.Reason,
		}
	default:
		return r, false
	}
	return r, true
}

// Credential names the actor of a request in the audit, by the role of its certificate.
func Credential(role, id string, breakGlass bool) string {
	if breakGlass {
		role = "break-glass"
	}
	return strings.Join([]string{role, id}, "/")
}

func encodeAsked(r *audit.Asked) *statev1.Asked {
	if r == nil {
		return nil
	}
	return &statev1.Asked{
		Actor: r.Actor, Address: r.Address, Verb: r.Verb, App: r.App, Group: r.Group, What: r.What, Reason: r.Reason,
		Request: r.Request, Outcome: r.Outcome, Times: r.Times, SinceMs: r.Since, Said: r.Said,
	}
}

func decodeAsked(p *statev1.Asked) *audit.Asked {
	if p == nil {
		return nil
	}
	return &audit.Asked{
		Actor: p.Actor, Address: p.Address, Verb: p.Verb, App: p.App, Group: p.Group, What: p.What, Reason: p.Reason,
		Request: p.Request, Outcome: p.Outcome, Times: p.Times, Since: p.SinceMs, Said: p.Said,
	}
}

// encodeAudit encodes facts of the audit itself.
func encodeAudit(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case RequestsRefused:
		return &statev1.Event{Fact: &statev1.Event_RequestsRefused{RequestsRefused: &statev1.RequestsRefused{
			Items: each(e.Items, func(r audit.Asked) *statev1.Asked { return encodeAsked(&r) }),
		}}}
	case AuditExported:
		return &statev1.Event{Fact: &statev1.Event_AuditExported{AuditExported: &statev1.AuditExported{
			Coordinator: e.Coordinator, Upto: e.Upto,
		}}}
	}
	return nil
}

func decodeAudit(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_RequestsRefused:
		return RequestsRefused{Items: each(f.RequestsRefused.Items, func(p *statev1.Asked) audit.Asked {
			return *decodeAsked(p)
		})}
	case *statev1.Event_AuditExported:
		return AuditExported{Coordinator: f.AuditExported.Coordinator, Upto: f.AuditExported.Upto}
	}
	return nil
}
