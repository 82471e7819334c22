package coordinator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// asking is a request of a person while it is answered. What it puts into the log carries
// it, so that who asked is recorded by the same step as what came of it; whichever replica
// leads by then.
type asking struct {
	audit.Asked
	mutates  bool
	file     bool        // it carries the content of one, which an error may quote
	recorded atomic.Bool // an entry has it, with its outcome
}

type askingKey struct{}

func askingOf(ctx context.Context) *asking {
	a, _ := ctx.Value(askingKey{}).(*asking)
	return a
}

// newAsking says who asks for what, by the rights that the request needs as far as they
// are known.
func newAsking(ctx context.Context, method string, req any, rights []access.Right) *asking {
	a := &asking{}
	name := method[strings.LastIndex(method, "/")+1:]
	if p, known := rpc.Caller(ctx); known {
		a.Actor = state.Credential(string(p.Role), p.ID, p.BreakGlass)
	}
	a.Address, a.Verb, a.What = rpc.From(ctx), name, name
	if len(rights) > 0 {
		a.App, a.Group = rights[0].App, rights[0].Group
		var verbs []string
		for _, r := range rights {
			if verbs = append(verbs, string(r.Verb)); r.Group != a.Group {
				a.Group = ""
			}
			if r.App != a.App {
				a.App, a.Group = "", ""
			}
		}
		slices.Sort(verbs)
		a.Verb = strings.Join(slices.Compact(verbs), " ")
	}
	if m, ok := req.(proto.Message); ok {
		a.What += words(m.ProtoReflect())
		_, a.file = req.(interface{ GetSource() []byte })
	}
	if m, ok := req.(interface{ GetMutation() *controlv1.Mutation }); ok {
		a.mutates = true
		a.Request, a.Reason = m.GetMutation().GetRequestId(), m.GetMutation().GetReason()
	}
	a.Asked = a.Cleaned()
	return a
}

// redact takes secrets that somebody has pasted out of what is kept of a request, here and
// in the facts that it makes.
func redact(req any) {
	if m, ok := req.(interface{ GetMutation() *controlv1.Mutation }); ok && m.GetMutation() != nil {
		m := m.GetMutation()
		m.RequestId, m.Reason = identity.Redact(m.RequestId), identity.Redact(m.Reason)
	}
}

// of is what an entry carries of the request: with what its facts give a name to.
func (a *asking) of(e state.Entry) *audit.Asked {
	out := a.Asked
	for _, id := range made(e) {
		if _, value, _ := strings.Cut(id, "="); !strings.Contains(out.What, value) {
			out.What += " " + id
		}
	}
	out = out.Cleaned()
	return &out
}

// made lists what facts give a name to, and what they are about where the request does
// not say it.
func made(e state.Entry) (ids []string) {
	for _, ev := range e.Events {
		switch ev := ev.(type) {
		case deploy.DeploymentCreated:
			ids = append(ids, "deployment="+ev.ID)
		case deploy.RequestMade:
			ids = append(ids, "deployment="+ev.Deployment)
		}
	}
	for _, c := range e.Cluster {
		switch c := c.(type) {
		case state.TokenCreated:
			ids = append(ids, "token="+c.ID)
		case state.TokenRevoked:
			ids = append(ids, "token="+c.ID)
		case state.CAAdded:
			ids = append(ids, "ca="+c.ID)
		case state.CARetired:
			ids = append(ids, "ca="+c.ID)
		case state.RingKeyAdded:
			ids = append(ids, "key="+c.ID)
		case state.IdentityRevoked:
			ids = append(ids, "identity="+c.Identity)
		}
	}
	return ids
}

// Limits of a request in words.
const (
	mostItems = 8
	mostValue = 200
)

// words writes down every field of a request that is set, in the order of their numbers,
// but who repeats it why, which are recorded apart. Contents of files are named by their
// hash: what they hold is nobody's business who reads the audit.
func words(m protoreflect.Message) string {
	var out strings.Builder
	fields := m.Descriptor().Fields()
	for _, f := range inOrder(fields) {
		if f.Name() == "mutation" || !m.Has(f) {
			continue
		}
		switch v := m.Get(f); {
		case f.IsMap():
			var parts []string
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				parts = append(parts, word(k.String())+":"+word(v.String()))
				return true
			})
			slices.Sort(parts)
			fmt.Fprintf(&out, " %s=%s", f.Name(), someOf(parts))
		case f.IsList():
			var parts []string
			for i := range v.List().Len() {
				parts = append(parts, value(f, v.List().Get(i)))
			}
			fmt.Fprintf(&out, " %s=%s", f.Name(), someOf(parts))
		default:
			fmt.Fprintf(&out, " %s=%s", f.Name(), value(f, v))
		}
	}
	return out.String()
}

func inOrder(fields protoreflect.FieldDescriptors) []protoreflect.FieldDescriptor {
	out := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range out {
		out[i] = fields.Get(i)
	}
	slices.SortFunc(out, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	return out
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return "{" + strings.TrimPrefix(words(v.Message()), " ") + "}"
	case protoreflect.BytesKind:
		return fmt.Sprintf("sha256:%x(%d)", sha256.Sum256(v.Bytes()), len(v.Bytes()))
	default:
		return word(v.String())
	}
}

// word is a value that cannot be taken for several, or for a field.
func word(s string) string {
	s = audit.Clean(identity.Redact(s), mostValue)
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(`="{},:`, r) && r != ':'
	}) {
		return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
	}
	return s
}

func someOf(parts []string) string {
	if len(parts) > mostItems {
		parts = append(parts[:mostItems:mostItems], fmt.Sprintf("+%d", len(parts)-mostItems))
	}
	return strings.Join(parts, ",")
}
