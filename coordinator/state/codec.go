package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// Entry is one log entry: facts of deployments and facts of the cluster itself.
type Entry struct {
	deploy.Entry
	Cluster []ClusterEvent // applied after the others
	// AllowedBy is 1 and the index of the access document by which a person may have
	// this: nothing of the entry is applied once there is another. 0 if nobody asked.
	AllowedBy uint64
	// Asked is the request that the facts are the effect of, for the audit; nil if nobody
	// asked. The outcome comes as it is applied.
	Asked *audit.Asked
}

// Encode returns the log's bytes of an entry.
func Encode(e Entry) ([]byte, error) {
	out := &statev1.Entry{At: int64(e.At), WallMs: e.Wall, Rules: int64(e.Rules), AllowedBy: e.AllowedBy}
	out.Asked = encodeAsked(e.Asked)
	for _, ev := range e.Events {
		p, err := encodeEvent(ev)
		if err != nil {
			return nil, err
		}
		out.Events = append(out.Events, p)
	}
	for _, ev := range e.Cluster {
		out.Events = append(out.Events, encodeCluster(ev))
	}
	b, err := proto.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode entry of %d facts: %w", len(out.Events), err)
	}
	return b, nil
}

// Decode reads an entry; bytes of a newer version with an unknown fact are an
// error, because skipping a fact would let replicas disagree.
func Decode(b []byte) (Entry, error) {
	var in statev1.Entry
	if err := proto.Unmarshal(b, &in); err != nil {
		return Entry{}, fmt.Errorf("decode log entry: %w", err)
	}
	out := Entry{
		Entry:     deploy.Entry{At: deploy.Time(in.At), Wall: in.WallMs, Rules: int(in.Rules)},
		AllowedBy: in.AllowedBy, Asked: decodeAsked(in.Asked),
	}
	for i, p := range in.Events {
		if c := decodeCluster(p); c != nil {
			out.Cluster = append(out.Cluster, c)
			continue
		}
		ev, err := decodeEvent(p)
		if err != nil {
			return Entry{}, fmt.Errorf("decode fact %d of a log entry: %w", i, err)
		}
		out.Events = append(out.Events, ev)
	}
	return out, nil
}

// encodeEvent finds the message of a fact among those of groups and hosts, of
// deployments, and of waves.
func encodeEvent(e deploy.Event) (*statev1.Event, error) {
	for _, encode := range []func(deploy.Event) *statev1.Event{encodeFleetFact, encodeDeploymentFact, encodeWaveFact} {
		if p := encode(e); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("fact %T has no message in proto/state/v1", e)
}

func decodeEvent(p *statev1.Event) (deploy.Event, error) {
	for _, decode := range []func(*statev1.Event) deploy.Event{decodeFleetFact, decodeDeploymentFact, decodeWaveFact} {
		if e := decode(p); e != nil {
			return e, nil
		}
	}
	return nil, fmt.Errorf("unknown fact %T; a newer coordinator wrote it, upgrade this one", p.Fact)
}

func encodeRequest(r deploy.Request) *statev1.Request {
	return &statev1.Request{Id: r.ID, Actor: r.Actor, Reason: r.Reason, Person: r.Person}
}

func decodeRequest(r *statev1.Request) deploy.Request {
	return deploy.Request{ID: r.GetId(), Actor: r.GetActor(), Reason: r.GetReason(), Person: r.GetPerson()}
}

// each converts a list; an empty one becomes nil.
func each[A, B any](in []A, convert func(A) B) []B {
	var out []B
	for _, a := range in {
		out = append(out, convert(a))
	}
	return out
}

func int64s(in []int) []int64 { return each(in, func(n int) int64 { return int64(n) }) }

func ints(in []int64) []int { return each(in, func(n int64) int { return int(n) }) }

func texts(in []deploy.Digest) []string {
	return each(in, func(d deploy.Digest) string { return string(d) })
}

func digests(in []string) []deploy.Digest {
	return each(in, func(s string) deploy.Digest { return deploy.Digest(s) })
}
