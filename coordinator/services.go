package coordinator

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/coordinator/traffic"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

func (c *Coordinator) newSessions() *sessions.Service {
	return sessions.New(sessions.Options{
		Name: c.o.Name, State: c.store, Log: c.log, Joins: c.batches, Sign: c.sign, Epoch: c.epoch,
		Bounds: func() sessions.Bounds {
			doc, index := c.rules()
			return sessions.Bounds{Index: index, RunAs: func(app string) []string { return doc.Bound(app).RunAs }}
		},
		Authorities: c.told.Load, Attributes: c.hostAttributes, Applied: c.log.applied,
		RingKeys: c.keys.ringKeys, CutOff: c.cutOffError, Begin: c.beginInstance, Speaks: c.speaks,
		Identify: func(ctx context.Context) (string, error) {
			p, ok := rpc.Caller(ctx)
			if !ok || p.Role != identity.Agent {
				return "", rpc.Errorf(rpc.KindForbidden, "only an agent has a session")
			}
			return p.ID, nil
		},
		Presence: func(host string, connected bool) {
			m := &peerv1.PresenceRequest{}
			if connected {
				m.Connected = []string{host}
			} else {
				m.Disconnected = []string{host}
			}
			c.fleet.Streams(c.o.Name, false, m.Connected, m.Disconnected)
			c.activity.ended(m.Disconnected)
			c.presence.tell(m)
		},
		Members: c.members.addresses,
		Limited: func(host, what string) {
			c.refusals.note("agent/"+host, agentv1.AgentService_Session_FullMethodName, what)
		},
		Progress: func(host string, p *agentv1.Progress) {
			c.activity.set(host, p)
			c.presence.tell(&peerv1.PresenceRequest{Progress: []*agentv1.Progress{p}, ProgressHosts: []string{host}})
		},
	})
}

func (c *Coordinator) newServer() (*rpc.Server, error) {
	server := rpc.NewServer(rpc.ServerOptions{
		Credential: c.keys.cred, Anonymous: true, Table: table(), IsLeader: c.log.leading, Forward: c.forward,
		Admit: c.admit, May: c.may, Applied: c.log.applied, Current: c.current, Refused: c.refusals.note,
		Failed: c.requestFailed,
		Panicked: func(method string, v any, stack []byte) {
			c.o.Log.Error("handler panicked", "method", method, "panic", fmt.Sprint(v), "stack", string(stack))
		},
	})
	enrolment, err := c.newEnrol()
	if err != nil {
		return nil, err
	}
	agentv1.RegisterEnrolmentServiceServer(server, enrolment)
	agentv1.RegisterAgentServiceServer(server,
		&agentService{Service: c.sessions, enrol: enrolment, mayRenew: c.mayRenew, traffic: c.traffic})
	peerv1.RegisterPeerServiceServer(server, &peerService{c: c, newest: map[string]uint64{}})
	c.operators = &membersService{Service: c.newControl(), c: c}
	controlv1.RegisterControlServiceServer(server, c.operators)
	healthv1.RegisterHealthServer(server, health.NewServer())
	return server, nil
}

// agentService joins sessions and the renewal of certificates.
type agentService struct {
	*sessions.Service
	enrol    *enrol.Service
	mayRenew func(context.Context) error
	traffic  *traffic.Service
}

// Traffic takes the caller out of a pool, or puts it back.
func (s *agentService) Traffic(
	r *agentv1.TrafficRequest, stream grpc.ServerStreamingServer[agentv1.TrafficProgress],
) error {
	p, ok := rpc.Caller(stream.Context())
	if !ok {
		return rpc.Errorf(rpc.KindUnauthorised, "only a host with a certificate has traffic")
	}
	return s.traffic.Serve(stream.Context(), p.ID, r, stream.Send)
}

// Renew issues a new certificate for the caller.
func (s *agentService) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	if err := s.mayRenew(ctx); err != nil {
		return nil, err
	}
	return s.enrol.Renew(ctx, r)
}

// Split gives a copy of a machine an identity of its own.
func (s *agentService) Split(ctx context.Context, r *agentv1.SplitRequest) (*agentv1.EnrolResponse, error) {
	return s.enrol.Split(ctx, r)
}

func (c *Coordinator) newControl() *control.Service {
	return control.New(control.Options{
		State: c.store, Log: c.log, Fleet: c.fleet, Parse: parseApp, Match: within(c.match,
			c.rulebook.last), Output: c.output,
		Pools: c.traffic.Doubts,
		Activity: func(host, app string) (control.Activity, bool) {
			if c.fleet.At(host) == "" { // what it said last is not what it does
				return control.Activity{}, false
			}
			return c.activity.get(host, app)
		},
		Actor: func(ctx context.Context) string {
			p, _ := rpc.Caller(ctx)
			return p.ID
		},
		Sight: c.sight, Groups: c.teams, Approvers: c.approvers,
		OwnFreeze: func(ctx context.Context, app, group string) bool {
			r, _ := c.rights(ctx)
			return !r.May(access.LiftFreeze, app, group)
		},
		Token: c.createToken, Person: c.person, Cluster: c.clusterStatus, History: c.readsPast(),
		Revoked: func(host string) (by string) {
			c.store.ViewCluster(func(s *state.Cluster) { by = s.Identities["agent/"+host].Revoked })
			return by
		},
	})
}
