package coordinator

import (
	"context"
	"sync"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

// How a request of a person is decided, so that no change of rights slips between the
// check and the effect: whoever answers looks at the document in force in its own copy
// of the state, and what it then puts into the log carries the index of that document.
// Apply refuses an entry whose document is in force no more, and the request is asked
// again from the beginning. So an entry takes effect only under the document by which
// it was allowed, whichever replica asked and whoever leads by then.

// rulebook is the access document in force, as this replica has it: read once for
// each index.
type rulebook struct {
	mu    sync.Mutex
	index uint64
	doc   *access.Document
	bad   error
}

// read returns the document of an entry. One that this build cannot read gives nobody
// anything, break-glass credentials apart.
func (b *rulebook) read(index uint64, source string) (*access.Document, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if index == b.index {
		return b.doc, b.bad
	}
	doc, bad := access.Parse([]byte(source), accessFile)
	if bad != nil {
		doc = &access.Document{}
	}
	if index > b.index { // else another has read a newer one meanwhile
		b.index, b.doc, b.bad = index, doc, bad
	}
	return doc, bad
}

// last returns the document that was read last. It looks at no state, so it may be
// asked while that is viewed; who decided the request has read it.
func (b *rulebook) last() *access.Document {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.doc
}

const accessFile = "access.yaml"

// rules returns the document in force and its index; nil and 0 where there is none.
func (c *Coordinator) rules() (*access.Document, uint64) {
	var index uint64
	var source string
	c.store.ViewCluster(func(s *state.Cluster) {
		if s.Access != nil {
			index, source = s.Access.Index, s.Access.Source
		}
	})
	if index == 0 {
		return nil, 0
	}
	doc, err := c.rulebook.read(index, source)
	if err != nil {
		c.o.Log.Error("the access document cannot be read by this build: nobody but a break-glass credential may "+
			"do anything here", "index", index, "error", err)
	}
	return doc, index
}

// rights returns what the caller may, as of the document with that index.
func (c *Coordinator) rights(ctx context.Context) (access.Rights, uint64) {
	doc, index := c.rules()
	p, known := rpc.Caller(ctx)
	switch {
	case !known || p.Role != identity.Operator:
		return access.Rights{}, index
	case p.BreakGlass:
		return access.Everything(), index
	}
	return doc.Of(p.ID), index
}

// sight is what the caller may know of.
func (c *Coordinator) sight(ctx context.Context) control.Sight {
	r, _ := c.rights(ctx)
	return sight{r, r.Fleet()}
}

// sight is asked for every row, so what is the same for all of them is known before.
type sight struct {
	access.Rights
	fleet bool
}

func (s sight) Sees(app, group string) bool { return s.May(access.View, app, group) }
func (s sight) SeesApp(app string) bool     { return s.Some(access.View, app) }
func (s sight) SeesFleet() bool             { return s.fleet }
func (s sight) SeesAll() bool               { return s.May(access.View, "", "") }

// allowedKey carries, in the context of a person's request, 1 and the index of the
// document by which it is allowed.
type allowedKey struct{}

func allowedBy(ctx context.Context) uint64 {
	by, _ := ctx.Value(allowedKey{}).(uint64)
	return by
}

// may decides whether the caller may make a request of the operators' API.
func (c *Coordinator) may(ctx context.Context, method string, req any) (rpc.Allowed, error) {
	out := rpc.Allowed{Context: ctx}
	p, known := rpc.Caller(ctx)
	if !known || p.Role != identity.Operator || !ofControl(method) {
		return out, nil // by the table of roles alone
	}
	find, ok := c.needs[method]
	if !ok {
		return out, rpc.Errorf(rpc.KindForbidden, "no rule allows %s", method)
	}
	redact(req)
	rights, index := c.rights(ctx)
	asked, err := find(question{c, ctx, rights, p.ID, req})
	// after the question, which has written into the request what its names mean
	out.Context = context.WithValue(ctx, askingKey{}, newAsking(ctx, method, req, asked))
	if err != nil {
		return out, err
	}
	out.Context = context.WithValue(out.Context, allowedKey{}, index+1)
	out.Still = func() error {
		now, _ := c.rights(ctx)
		return c.lacks(now, p.ID, asked)
	}
	return out, c.lacks(rights, p.ID, asked)
}

// lacks says which of the rights is missing, and whom to ask.
func (c *Coordinator) lacks(rights access.Rights, person string, asked []access.Right) error {
	for _, r := range asked {
		if !rights.Has(r) {
			doc, _ := c.rules()
			return rpc.Errorf(rpc.KindForbidden, "%s", doc.Explain(person, r).Refusal())
		}
	}
	return nil
}
