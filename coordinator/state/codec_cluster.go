package state

import (
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

func encodeCluster(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case ClusterCreated:
		return &statev1.Event{Fact: &statev1.Event_ClusterCreated{ClusterCreated: &statev1.ClusterCreated{
			Id: e.ID, CaPem: e.CA,
			Founders: each(e.Founders, func(f Founder) *statev1.Identity {
				return &statev1.Identity{Identity: f.Identity, Key: f.Key}
			}),
		}}}
	case CoordinatorJoined:
		return &statev1.Event{Fact: &statev1.Event_CoordinatorJoined{CoordinatorJoined: &statev1.CoordinatorJoined{
			Name: e.Name, RaftAddress: e.Raft, ApiAddress: e.API, AgentAddress: e.Agent, GossipAddress: e.Gossip,
			Rules: int64(e.Rules), Ca: e.CA, Ring: e.Ring,
		}}}
	case CoordinatorRemoved:
		return &statev1.Event{Fact: &statev1.Event_CoordinatorRemoved{CoordinatorRemoved: &statev1.CoordinatorRemoved{
			Request: encodeRequest(e.Request), Name: e.Name,
		}}}
	case EpochBegun:
		return &statev1.Event{Fact: &statev1.Event_EpochBegun{EpochBegun: &statev1.EpochBegun{
			Epoch: e.Epoch, Coordinator: e.Coordinator, Key: e.Key, Reason: e.Reason,
		}}}
	case EpochActivated:
		return &statev1.Event{Fact: &statev1.Event_EpochActivated{EpochActivated: &statev1.EpochActivated{
			Request: encodeRequest(e.Request), Epoch: e.Epoch,
		}}}
	case AccessChanged:
		return encodeAccess(e)
	}
	if out := encodeAuthorities(e); out != nil {
		return out
	}
	if out := encodeAudit(e); out != nil {
		return out
	}
	if out := encodeInstanceFact(e); out != nil {
		return out
	}
	return encodeIdentityFact(e)
}

func encodeMachine(m Machine) *statev1.Machine {
	return &statev1.Machine{Instance: m.Instance, Address: m.Address}
}

func decodeMachine(p *statev1.Machine) Machine {
	return Machine{Instance: p.GetInstance(), Address: p.GetAddress()}
}

// encodeInstanceFact encodes facts of the machines behind a host's identity.
func encodeInstanceFact(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case InstanceBegan:
		return &statev1.Event{Fact: &statev1.Event_InstanceBegan{InstanceBegan: &statev1.InstanceBegan{
			Host: e.Host, Was: e.Was, Instance: e.Instance, Address: e.Address,
		}}}
	case InstanceCleared:
		return &statev1.Event{Fact: &statev1.Event_InstanceCleared{InstanceCleared: &statev1.InstanceCleared{
			Host: e.Host, Instance: e.Instance,
		}}}
	case HostCloned:
		return &statev1.Event{Fact: &statev1.Event_HostCloned{HostCloned: &statev1.HostCloned{
			Host: e.Host, First: encodeMachine(e.First), Second: encodeMachine(e.Second),
		}}}
	case HostSplit:
		return &statev1.Event{Fact: &statev1.Event_HostSplit{HostSplit: &statev1.HostSplit{
			Request: encodeRequest(e.Request), Host: e.Host, Keep: e.Keep,
		}}}
	case SplitEnrolled:
		return &statev1.Event{Fact: &statev1.Event_SplitEnrolled{SplitEnrolled: &statev1.SplitEnrolled{
			Host: e.Host, Instances: e.Instances, Id: e.ID, Name: e.Name, Key: e.Key, Address: e.Address,
		}}}
	}
	return nil
}

func decodeInstanceFact(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_InstanceBegan:
		e := f.InstanceBegan
		return InstanceBegan{Host: e.Host, Was: e.Was, Machine: Machine{Instance: e.Instance, Address: e.Address}}
	case *statev1.Event_InstanceCleared:
		return InstanceCleared{Host: f.InstanceCleared.Host, Instance: f.InstanceCleared.Instance}
	case *statev1.Event_HostCloned:
		e := f.HostCloned
		return HostCloned{Host: e.Host, First: decodeMachine(e.First), Second: decodeMachine(e.Second)}
	case *statev1.Event_HostSplit:
		return HostSplit{Request: decodeRequest(f.HostSplit.Request), Host: f.HostSplit.Host, Keep: f.HostSplit.Keep}
	case *statev1.Event_SplitEnrolled:
		e := f.SplitEnrolled
		return SplitEnrolled{
			Host: e.Host, Instances: e.Instances, ID: e.Id, Name: e.Name, Key: e.Key, Address: e.Address,
		}
	}
	return nil
}

func encodeAuthorities(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case CAAdded:
		return &statev1.Event{Fact: &statev1.Event_CaAdded{CaAdded: &statev1.CAAdded{
			Request: encodeRequest(e.Request), Id: e.ID, CaPem: e.CA,
		}}}
	case CAIssues:
		return &statev1.Event{Fact: &statev1.Event_CaIssues{CaIssues: &statev1.CAIssues{Id: e.ID, CaPem: e.CA}}}
	case RingKeyAdded:
		return &statev1.Event{Fact: &statev1.Event_RingKeyAdded{RingKeyAdded: &statev1.RingKeyAdded{
			Request: encodeRequest(e.Request), Id: e.ID,
		}}}
	case RingKeyUsed:
		return &statev1.Event{Fact: &statev1.Event_RingKeyUsed{RingKeyUsed: &statev1.RingKeyUsed{Id: e.ID}}}
	case RingKeyRetired:
		return &statev1.Event{Fact: &statev1.Event_RingKeyRetired{RingKeyRetired: &statev1.RingKeyRetired{Id: e.ID}}}
	case CARetired:
		return &statev1.Event{Fact: &statev1.Event_CaRetired{CaRetired: &statev1.CARetired{
			Request: encodeRequest(e.Request), Id: e.ID, CaPem: e.CA,
		}}}
	}
	return nil
}

// encodeIdentityFact encodes facts of tokens and identities.
func encodeIdentityFact(e ClusterEvent) *statev1.Event {
	switch e := e.(type) {
	case TokenCreated:
		return &statev1.Event{Fact: &statev1.Event_TokenCreated{TokenCreated: &statev1.TokenCreated{
			Request: encodeRequest(e.Request), Id: e.ID, Hash: e.Hash, Role: e.Role, LifeNs: e.Life, Uses: e.Uses,
			Name: e.Name, Host: e.Host, Binds: encodeAttributes(e.Binds),
		}}}
	case TokenUsed:
		return &statev1.Event{Fact: &statev1.Event_TokenUsed{TokenUsed: &statev1.TokenUsed{
			Id: e.ID, Hash: e.Hash, Role: e.Role, Subject: e.Subject, Key: e.Key,
			Says: encodeAttributes(e.Says), Instance: e.Instance, Address: e.Address,
		}}}
	case OriginEnrolled:
		return &statev1.Event{Fact: &statev1.Event_OriginEnrolled{OriginEnrolled: &statev1.OriginEnrolled{
			Origin: e.Origin, Subject: e.Subject, Key: e.Key, Binds: encodeAttributes(e.Binds),
			Says: encodeAttributes(e.Says), Instance: e.Instance, Address: e.Address,
		}}}
	case AttributesApproved:
		return &statev1.Event{Fact: &statev1.Event_AttributesApproved{AttributesApproved: &statev1.AttributesApproved{
			Request: encodeRequest(e.Request), Host: e.Host, Attributes: encodeAttributes(&e.Attributes),
			Approved: e.Approved,
		}}}
	case TokenRevoked:
		return &statev1.Event{Fact: &statev1.Event_TokenRevoked{TokenRevoked: &statev1.TokenRevoked{
			Request: encodeRequest(e.Request), Id: e.ID,
		}}}
	case PersonConfirmed:
		return &statev1.Event{Fact: &statev1.Event_PersonConfirmed{PersonConfirmed: &statev1.PersonConfirmed{
			Request: encodeRequest(e.Request), Name: e.Name,
		}}}
	case IdentityRevoked:
		return &statev1.Event{Fact: &statev1.Event_IdentityRevoked{IdentityRevoked: &statev1.IdentityRevoked{
			Request: encodeRequest(e.Request), Identity: e.Identity,
		}}}
	case BreakGlassUsed:
		return &statev1.Event{Fact: &statev1.Event_BreakGlassUsed{BreakGlassUsed: &statev1.BreakGlassUsed{
			Name: e.Name, Key: e.Key, Coordinator: e.Coordinator,
		}}}
	}
	return &statev1.Event{}
}

// decodeCluster returns nil for facts of deployments.
func decodeCluster(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_ClusterCreated:
		return ClusterCreated{
			ID: f.ClusterCreated.Id, CA: f.ClusterCreated.CaPem,
			Founders: each(f.ClusterCreated.Founders, func(i *statev1.Identity) Founder {
				return Founder{Identity: i.Identity, Key: i.Key}
			}),
		}
	case *statev1.Event_CoordinatorJoined:
		e := f.CoordinatorJoined
		return CoordinatorJoined{
			Name: e.Name, Raft: e.RaftAddress, API: e.ApiAddress, Agent: e.AgentAddress, Gossip: e.GossipAddress,
			Rules: int(e.Rules), CA: e.Ca, Ring: e.Ring,
		}
	case *statev1.Event_CoordinatorRemoved:
		return CoordinatorRemoved{Request: decodeRequest(f.CoordinatorRemoved.Request), Name: f.CoordinatorRemoved.Name}
	case *statev1.Event_EpochBegun:
		e := f.EpochBegun
		return EpochBegun{Epoch: e.Epoch, Coordinator: e.Coordinator, Key: e.Key, Reason: e.Reason}
	case *statev1.Event_EpochActivated:
		return EpochActivated{Request: decodeRequest(f.EpochActivated.Request), Epoch: f.EpochActivated.Epoch}
	case *statev1.Event_AccessChanged:
		return decodeAccess(f.AccessChanged)
	}
	if out := decodeAuthorities(p); out != nil {
		return out
	}
	if out := decodeAudit(p); out != nil {
		return out
	}
	if out := decodeInstanceFact(p); out != nil {
		return out
	}
	return decodeIdentityFact(p)
}

func decodeAuthorities(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_CaAdded:
		return CAAdded{Request: decodeRequest(f.CaAdded.Request), ID: f.CaAdded.Id, CA: f.CaAdded.CaPem}
	case *statev1.Event_RingKeyAdded:
		return RingKeyAdded{Request: decodeRequest(f.RingKeyAdded.Request), ID: f.RingKeyAdded.Id}
	case *statev1.Event_RingKeyUsed:
		return RingKeyUsed{ID: f.RingKeyUsed.Id}
	case *statev1.Event_RingKeyRetired:
		return RingKeyRetired{ID: f.RingKeyRetired.Id}
	case *statev1.Event_CaIssues:
		return CAIssues{ID: f.CaIssues.Id, CA: f.CaIssues.CaPem}
	case *statev1.Event_CaRetired:
		return CARetired{Request: decodeRequest(f.CaRetired.Request), ID: f.CaRetired.Id, CA: f.CaRetired.CaPem}
	}
	return nil
}

func decodeIdentityFact(p *statev1.Event) ClusterEvent {
	switch f := p.Fact.(type) {
	case *statev1.Event_TokenCreated:
		e := f.TokenCreated
		return TokenCreated{
			Request: decodeRequest(e.Request), ID: e.Id, Hash: e.Hash, Role: e.Role, Name: e.Name, Host: e.Host,
			Life: e.LifeNs, Uses: e.Uses, Binds: decodeAttributes(e.Binds),
		}
	case *statev1.Event_TokenUsed:
		e := f.TokenUsed
		return TokenUsed{
			ID: e.Id, Hash: e.Hash, Role: e.Role, Subject: e.Subject, Key: e.Key, Says: decodeAttributes(e.Says),
			Instance: e.Instance, Address: e.Address,
		}
	case *statev1.Event_OriginEnrolled:
		e := f.OriginEnrolled
		return OriginEnrolled{
			Origin: e.Origin, Subject: e.Subject, Key: e.Key, Binds: decodeAttributes(e.Binds),
			Says: decodeAttributes(e.Says), Instance: e.Instance, Address: e.Address,
		}
	case *statev1.Event_AttributesApproved:
		e := f.AttributesApproved
		out := AttributesApproved{Request: decodeRequest(e.Request), Host: e.Host, Approved: e.Approved}
		if a := decodeAttributes(e.Attributes); a != nil {
			out.Attributes = *a
		}
		return out
	case *statev1.Event_TokenRevoked:
		return TokenRevoked{Request: decodeRequest(f.TokenRevoked.Request), ID: f.TokenRevoked.Id}
	case *statev1.Event_PersonConfirmed:
		return PersonConfirmed{Request: decodeRequest(f.PersonConfirmed.Request), Name: f.PersonConfirmed.Name}
	case *statev1.Event_IdentityRevoked:
		return IdentityRevoked{Request: decodeRequest(f.IdentityRevoked.Request), Identity: f.IdentityRevoked.Identity}
	case *statev1.Event_BreakGlassUsed:
		e := f.BreakGlassUsed
		return BreakGlassUsed{Name: e.Name, Key: e.Key, Coordinator: e.Coordinator}
	}
	return nil
}
