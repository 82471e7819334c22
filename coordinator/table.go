package coordinator

import (
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// table says who may call what, by what kind of certificate: deny by default. A test
// fails for a method of a served service without a row. What people may by their rights
// is in the table of needs.
func table() rpc.Table {
	agents, peers, people := []identity.Role{identity.Agent}, []identity.Role{identity.Coordinator},
		[]identity.Role{identity.Operator}
	read, lead := rpc.Rule{Roles: people}, rpc.Rule{Roles: people, Leader: true}
	return rpc.Table{
		agentv1.EnrolmentService_Roots_FullMethodName: {Anonymous: true},
		// a fresh token works everywhere
		agentv1.EnrolmentService_Enrol_FullMethodName: {Anonymous: true, Leader: true},

		agentv1.AgentService_Session_FullMethodName:      {Roles: agents},
		agentv1.AgentService_SignArtifact_FullMethodName: {Roles: agents},
		agentv1.AgentService_Traffic_FullMethodName:      {Roles: agents},
		agentv1.AgentService_Split_FullMethodName:        {Roles: agents, Leader: true},
		agentv1.AgentService_Renew_FullMethodName:        {Roles: []identity.Role{identity.Agent, identity.Operator}},

		peerv1.PeerService_Propose_FullMethodName:  {Roles: peers},
		peerv1.PeerService_Presence_FullMethodName: {Roles: peers},
		peerv1.PeerService_Keys_FullMethodName:     {Roles: peers, Leader: true}, // who is a member, the leader knows
		peerv1.PeerService_Join_FullMethodName:     {Roles: peers, Leader: true},
		peerv1.PeerService_Logs_FullMethodName:     {Roles: peers},
		peerv1.PeerService_Living_FullMethodName:   {Roles: peers},
		peerv1.PeerService_Snapshot_FullMethodName: {Roles: peers},
		peerv1.PeerService_Describe_FullMethodName: {Roles: peers},

		controlv1.ControlService_CreateDeployment_FullMethodName:   lead,
		controlv1.ControlService_PlanDeployment_FullMethodName:     lead,
		controlv1.ControlService_Rollback_FullMethodName:           lead,
		controlv1.ControlService_Act_FullMethodName:                lead,
		controlv1.ControlService_ApplyApp_FullMethodName:           lead,
		controlv1.ControlService_SimulateDeployment_FullMethodName: lead,
		controlv1.ControlService_SetFreeze_FullMethodName:          lead,
		controlv1.ControlService_DeleteGroup_FullMethodName:        lead,
		controlv1.ControlService_CordonHost_FullMethodName:         lead,
		controlv1.ControlService_DrainHost_FullMethodName:          lead,
		controlv1.ControlService_SplitHost_FullMethodName:          lead,
		controlv1.ControlService_SetHostAttributes_FullMethodName:  lead,
		controlv1.ControlService_RegisterRevision_FullMethodName:   lead,
		controlv1.ControlService_PruneRevisions_FullMethodName:     lead,
		controlv1.ControlService_ForgetHost_FullMethodName:         lead,
		controlv1.ControlService_CreateToken_FullMethodName:        lead,
		controlv1.ControlService_ListTokens_FullMethodName:         lead, // it knows what time the log has
		controlv1.ControlService_RevokeToken_FullMethodName:        lead,
		controlv1.ControlService_ConfirmPerson_FullMethodName:      lead,
		controlv1.ControlService_RevokeIdentity_FullMethodName:     lead,
		controlv1.ControlService_RemoveCoordinator_FullMethodName:  lead,
		controlv1.ControlService_ActivateEpoch_FullMethodName:      lead,
		controlv1.ControlService_RotateCA_FullMethodName:           lead,
		controlv1.ControlService_RotateRingKey_FullMethodName:      lead,
		controlv1.ControlService_RetireCA_FullMethodName:           lead,
		controlv1.ControlService_ApplyAccess_FullMethodName:        lead,
		controlv1.ControlService_ListHosts_FullMethodName:          lead, // the leader knows every stream
		controlv1.ControlService_GetHost_FullMethodName:            lead,
		controlv1.ControlService_ClusterStatus_FullMethodName:      lead,

		controlv1.ControlService_GetDeployment_FullMethodName:   read,
		controlv1.ControlService_ListDeployments_FullMethodName: read,
		controlv1.ControlService_WatchDeployment_FullMethodName: read,
		controlv1.ControlService_Logs_FullMethodName:            read,
		controlv1.ControlService_ListApps_FullMethodName:        read,
		controlv1.ControlService_GetApp_FullMethodName:          read,
		controlv1.ControlService_ListRevisions_FullMethodName:   read,
		controlv1.ControlService_ListPeople_FullMethodName:      read,
		controlv1.ControlService_Backup_FullMethodName:          read,
		controlv1.ControlService_GetAccess_FullMethodName:       read,
		controlv1.ControlService_ExplainAccess_FullMethodName:   read,
		controlv1.ControlService_WhoAmI_FullMethodName:          read,
		controlv1.ControlService_ListAudit_FullMethodName:       read,
		controlv1.ControlService_Snapshot_FullMethodName:        lead,
	}
}
