package coordinator

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/state"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Bounds of one answer of ListAudit.
const (
	mostRecords  = 1000
	longestAudit = 3 << 20 // clients that set no limit of their own read 4 MiB
)

// ListAudit shows the records that the caller may read: those of an application and group
// by a right on it, those of none by a right on every one.
func (s *membersService) ListAudit(
	ctx context.Context, r *controlv1.ListAuditRequest,
) (*controlv1.ListAuditResponse, error) {
	rights, _ := s.c.rights(ctx)
	out := &controlv1.ListAuditResponse{Coordinator: s.c.o.Name}
	var log audit.Log
	s.c.store.ViewCluster(func(cl *state.Cluster) { log = cl.Audit }) // its records are only appended to
	page, size, all := int(r.PageSize), 0, rights.May(access.Audit, "", "")
	if page <= 0 || page > mostRecords {
		page = mostRecords
	}
	for i, rec := range slices.Backward(log.Records) {
		if r.Before != 0 && rec.Seq >= r.Before || !all && !rights.May(access.Audit, rec.App, rec.Group) ||
			!asks(r, rec) {
			continue
		}
		v := auditView(rec)
		if size += proto.Size(v) + 8; len(out.Records) == page || size > longestAudit {
			out.Next = out.Records[len(out.Records)-1].Seq
			break
		}
		out.Records = append(out.Records, v)
		if out.BeforeSum = log.Before.String(); i > 0 {
			out.BeforeSum = log.Records[i-1].Sum.String()
		}
	}
	if !all {
		out.BeforeSum = ""
		return out, nil
	}
	out.Head, out.HeadSum, out.Exported, out.Lost = log.Seq, log.Head.String(), log.Exported, log.Lost
	if len(log.Records) > 0 {
		out.Kept = log.Records[0].Seq
	}
	return out, nil
}

// asks reports whether a record is one that a request asks for.
func asks(r *controlv1.ListAuditRequest, rec audit.Record) bool {
	_, name, _ := strings.Cut(rec.Actor, "/")
	switch {
	case rec.At < r.SinceMs,
		r.Actor != "" && r.Actor != rec.Actor && r.Actor != name,
		r.App != "" && r.App != rec.App,
		r.Verb != "" && !slices.Contains(strings.Fields(rec.Verb), r.Verb):
		return false
	}
	return true
}

func auditView(r audit.Record) *controlv1.AuditRecord {
	return &controlv1.AuditRecord{
		Seq: r.Seq, Index: r.Index, AtMs: r.At, SinceMs: r.Since, Actor: r.Actor, Address: r.Address, Verb: r.Verb,
		App: r.App, Group: r.Group, What: r.What, Reason: r.Reason, Request: r.Request, Outcome: r.Outcome,
		Times: r.Times, Said: r.Said, Sum: r.Sum.String(),
	}
}

// readsAudit: who may read the audit of something, of which they are shown the records;
// of an application that is named, who may read some of that.
func readsAudit(q question) ([]access.Right, error) {
	if app := q.req.(*controlv1.ListAuditRequest).App; app != "" {
		return []access.Right{{Verb: access.Audit, App: app, AnyGroup: true}}, nil
	}
	if q.rights.Anywhere(access.Audit) {
		return nil, nil
	}
	return []access.Right{{Verb: access.Audit}}, nil
}
