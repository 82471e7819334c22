package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// How a CA is replaced while the cluster runs. The log holds certificates and the
// order of steps; the key goes from coordinator to coordinator over mutual TLS.
//
//  1. The leader makes a CA, has its key on its disk, and proposes CAAdded: both
//     are trusted, the old one issues.
//  2. Each coordinator fetches the key, has it on disk, and announces that.
//  3. Once all have it the leader proposes CAIssues: each coordinator gives itself
//     a certificate of the new CA, with the old one's word for that CA beside it;
//     agents are told and renew; people renew with their next command.
//  4. A person ends the trust in the old CA: CARetired.
//
// Crash safety: a key is on disk before anything in the log or in a certificate
// rests on it, and leaves the disk after the trust in it. Each step can be done
// twice. A leader that dies between 1's disk and 1's log leaves a key that nobody
// trusts; it is dropped with the next step. If every holder of a new key is lost
// before 3, the new CA is given up by retiring it.

// cas is what the log says of the CAs.
type cas struct {
	pem    []byte
	next   string
	issues bool   // next
	holds  string // what this coordinator has announced
}

func (c *Coordinator) casNow() (now cas) {
	c.store.ViewCluster(func(s *state.Cluster) {
		now = cas{pem: s.CA, next: s.NextCA, issues: s.NextIssues, holds: s.Coordinators[c.o.Name].CA}
	})
	return now
}

// followCAs keeps this coordinator's CAs as the log has them, until ctx ends.
func (c *Coordinator) followCAs(ctx context.Context) error {
	return c.follow(ctx, "the cluster's CAs are not taken into use yet", c.takeCAs)
}

// follow brings something of this coordinator in line with the log, whenever that
// changes, and again after a second where it fails; until ctx ends. What comes before
// the log that was on disk is applied speaks of what is long over.
func (c *Coordinator) follow(ctx context.Context, trouble string, take func(context.Context) error) error {
	c.replayed(ctx)
	for said := ""; ctx.Err() == nil; {
		changed := c.store.Changed()
		again := make(<-chan time.Time)
		if err := take(ctx); err != nil && ctx.Err() == nil {
			if text := err.Error(); text != said {
				c.o.Log.Warn(trouble, "error", err)
				said = text
			}
			again = time.After(time.Second)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
		}
	}
	return nil
}

// replayed waits until the log that was on disk is applied, or ctx ends.
func (c *Coordinator) replayed(ctx context.Context) {
	for {
		changed := c.store.Changed()
		if c.index() >= c.store.Replayed {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Coordinator) takeCAs(ctx context.Context) error {
	now := c.casNow()
	if len(now.pem) == 0 { // there is no cluster yet, or the log was not read
		return nil
	}
	have := c.keys.authorities()
	if !bytes.Equal(have.PEM(), now.pem) || now.next != "" && !have.Holds(now.next) {
		more, err := c.fetchCAKeys(ctx, now)
		if err != nil {
			return err
		}
		old := have.Issuer().ID()
		if err := c.keys.take(now.pem, more); err != nil {
			return err
		}
		have = c.keys.authorities()
		c.o.Log.Info("the cluster's CAs changed", "issues", have.Issuer().ID(), "trusted", now.next)
		if old != have.Issuer().ID() || now.next == "" {
			c.peers.redial() // what is open shows a certificate of before
			c.server.End(func(l rpc.Live) bool {
				return l.Peer.Role == identity.Operator && !slices.Contains(l.CAs, have.Issuer().ID())
			}, rpc.Errorf(rpc.KindUnavailable, "the cluster's CA was replaced; connect again"))
		}
		if now.next == "" {
			c.raft.drop()
			c.server.Recheck()
		}
		c.tell(now.pem)
	} else if c.told.Load() == nil {
		c.tell(now.pem)
	}
	if now.holds == now.next {
		return nil
	}
	self := c.self()
	self.CA = now.next
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	return c.log.cluster(ctx, state.CoordinatorJoined(self))
}

// fetchCAKeys returns the key of the CA that is brought in, or that issues, if it
// is not on this disk, from whoever has it.
func (c *Coordinator) fetchCAKeys(ctx context.Context, now cas) ([]byte, error) {
	want := now.next
	if want == "" {
		ids, err := identity.IDs(now.pem)
		if err != nil {
			return nil, err
		}
		want = ids[0]
	}
	if c.keys.onDisk(now.pem, want) {
		return nil, nil
	}
	for _, m := range c.peers.members() {
		if m.Name == c.o.Name {
			continue
		}
		if out, err := c.askKeys(ctx, m); err == nil && holdsKey(now.pem, out.CaKeyPem, want) {
			return out.CaKeyPem, nil
		}
	}
	return nil, fmt.Errorf("no coordinator that answers has the key of CA %s", want)
}

func (c *Coordinator) askKeys(ctx context.Context, m state.Coordinator) (*peerv1.KeysResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	cc, err := c.peers.dial(m.API)
	if err != nil {
		return nil, err
	}
	return peerv1.NewPeerServiceClient(cc).Keys(ctx, &peerv1.KeysRequest{})
}

// holdsKey reports whether the key of a CA is among keys.
func holdsKey(certsPEM, keysPEM []byte, id string) bool {
	one := identity.Only(certsPEM, id)
	if one == nil {
		return false
	}
	a, err := identity.ParseAuthorities(one, keysPEM, 0)
	return err == nil && a.Holds(id)
}

// onDisk reports whether the key of a CA is in the coordinator's folder.
func (k *keys) onDisk(certsPEM []byte, id string) bool {
	keysPEM, err := os.ReadFile(filepath.Join(k.root, caKeyFile))
	return err == nil && holdsKey(certsPEM, keysPEM, id)
}

// add puts keys beside those on disk; they are there on return. The caller holds mu.
func (k *keys) add(keysPEM []byte) error {
	if len(keysPEM) == 0 {
		return nil
	}
	path := filepath.Join(k.root, caKeyFile)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read CA key: %w", err)
	}
	return identity.WriteSecret(path, append(old, keysPEM...))
}

// take makes the CAs those that are used here, on disk first: the keys that come
// with them, then a certificate of the one that issues, then nothing of what is
// trusted no more.
func (k *keys) take(certsPEM, more []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.add(more); err != nil {
		return err
	}
	all, err := readCAs(k.root, certsPEM, k.life)
	if err != nil {
		return err
	}
	k.cas.Store(all)
	if err := k.reissue(); err != nil {
		return err
	}
	keysPEM, err := all.KeysPEM()
	if err != nil {
		return err
	}
	return identity.WriteSecret(filepath.Join(k.root, caKeyFile), keysPEM)
}

// moveCAs lets the new CA issue once every coordinator holds its key, while this
// one leads.
func (c *Coordinator) moveCAs(ctx context.Context) error {
	for {
		changed := c.store.Changed()
		now := c.casNow()
		if now.next != "" && !now.issues {
			waits, err := c.withoutCAKey(now.next)
			if err != nil {
				return err
			}
			if len(waits) == 0 {
				next := identity.Only(now.pem, now.next)
				e := state.CAIssues{ID: now.next, CA: append(next, identity.Without(now.pem, now.next)...)}
				if err := c.log.cluster(ctx, e); err != nil && ctx.Err() == nil {
					return fmt.Errorf("let CA %s issue: %w", now.next, err)
				}
				continue
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// withoutCAKey lists the coordinators that have not announced the key of a CA.
func (c *Coordinator) withoutCAKey(id string) ([]string, error) {
	return c.without(func(m state.Coordinator) bool { return m.CA == id })
}

// without lists the members of raft that do not have something.
func (c *Coordinator) without(has func(state.Coordinator) bool) (waits []string, err error) {
	servers, err := c.node.Servers()
	if err != nil {
		return nil, err
	}
	c.store.ViewCluster(func(s *state.Cluster) {
		for _, server := range servers {
			if !has(s.Coordinators[server.Name]) {
				waits = append(waits, server.Name)
			}
		}
	})
	return waits, nil
}

// RotateCA brings in a new CA.
func (s *membersService) RotateCA(ctx context.Context,
	r *controlv1.RotateCARequest,
) (*controlv1.RotateCAResponse, error) {
	k := s.c.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := s.c.casNow(); now.next != "" {
		return nil, rpc.Errorf(rpc.KindConflict, "CA %s is being brought in already; see `dctl cluster ca status`",
			now.next)
	}
	ca, err := identity.NewCA(s.c.o.Name)
	if err != nil {
		return nil, err
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	if err := k.add(key); err != nil {
		return nil, err
	}
	e := state.CAAdded{
		Request: s.c.request(ctx, r.Mutation), ID: ca.ID(), CA: slices.Concat(s.c.casNow().pem, ca.PEM),
	}
	err = s.c.log.cluster(ctx, e)
	return &controlv1.RotateCAResponse{Index: s.c.index(), Id: ca.ID()}, err
}

// RetireCA ends the trust in the CA that does not issue.
func (s *membersService) RetireCA(ctx context.Context,
	r *controlv1.RetireCARequest,
) (*controlv1.RetireCAResponse, error) {
	now := s.c.casNow()
	ids, err := identity.IDs(now.pem)
	if err != nil {
		return nil, err
	}
	if now.next == "" || len(ids) < 2 {
		return nil, rpc.Errorf(rpc.KindConflict,
			"no CA but the issuing one is trusted; `dctl cluster ca rotate` brings in another")
	}
	if now.issues == r.GiveUp {
		return nil, giveUp(now, few(s.c.behind(nil, now)))
	}
	if behind := s.c.behind(s.c.describeAll(ctx, s.c.peers.members()), now); now.issues && len(behind) > 0 && !r.Force {
		return nil, rpc.Errorf(rpc.KindConflict,
			"%d have not shown a certificate of the CA that issues, and would need a new token if they have none: %s; "+
				"wait for them, or use --force", len(behind), few(behind))
	}
	e := state.CARetired{
		Request: s.c.request(ctx, r.Mutation), ID: ids[1], CA: identity.Without(now.pem, ids[1]),
	}
	err = s.c.log.cluster(ctx, e)
	return &controlv1.RetireCAResponse{Index: s.c.index(), Id: ids[1], Issues: ids[0]}, err
}

// giveUp says why retiring would not do what was meant.
func giveUp(now cas, behind string) error {
	if now.issues {
		return rpc.Errorf(rpc.KindConflict, "CA %s issues already and cannot be given up; retire its predecessor",
			now.next)
	}
	return rpc.Errorf(rpc.KindConflict,
		"CA %s does not issue yet, it waits for %s; wait too, or give it up with --give-up",
		now.next, behind)
}

// few shortens a list of names.
func few(names []string) string {
	const most = 10
	if len(names) <= most {
		return fmt.Sprint(names)
	}
	return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
}

// behind lists the coordinators and connected hosts that have nothing of the CA
// that issues, and while one waits to issue the coordinators that lack its key.
func (c *Coordinator) behind(said map[string]*peerv1.DescribeResponse, now cas) (out []string) {
	if now.next == "" {
		return nil
	}
	if !now.issues {
		out, _ = c.withoutCAKey(now.next) // raft is closed: nobody can be asked
		return out
	}
	names := c.hostNames()
	for _, m := range c.peers.members() {
		d := said[m.Name]
		if d == nil || d.Ca != now.next {
			out = append(out, m.Name)
		}
		if d != nil {
			for _, h := range d.Behind {
				out = append(out, names(h))
			}
		}
	}
	return out
}

// mayRenew refuses to give who has a certificate of another CA one of the CA that
// issues, unless the log knows that key: whoever had the old CA's key can have made
// certificates that nobody gave.
func (c *Coordinator) mayRenew(ctx context.Context) error {
	p, known := rpc.Caller(ctx)
	if !known || slices.Contains(rpc.CallerCAs(ctx), c.keys.authorities().Issuer().ID()) {
		return nil
	}
	owns := false
	c.store.ViewCluster(func(s *state.Cluster) { owns = s.Owner(string(p.Role)+"/"+p.ID, rpc.CallerKey(ctx)) })
	if owns {
		return nil
	}
	return rpc.Errorf(rpc.KindUnauthorised,
		"the cluster knows nothing of the key of %s %s, and its CA is being replaced; "+
			"come back with a new token", p.Role, p.ID)
}

// describeCAs adds to a status which CAs there are, and who is behind.
func (c *Coordinator) describeCAs(out *controlv1.ClusterStatusResponse, said map[string]*peerv1.DescribeResponse) {
	now := c.casNow()
	out.Ca, out.NextCa, out.CaBehind = c.keys.authorities().Issuer().ID(), now.next, c.behind(said, now)
	connected := 0
	for _, m := range c.peers.members() {
		connected += c.fleet.Count(m.Name)
	}
	c.describeRing(out)
	c.store.View(func(s *deploy.State) { out.CaAway = int32(max(0, len(s.Hosts)-connected)) })
}

// behindHere lists the hosts with a stream here whose certificate is of another CA
// than the one that issues. People who watch renew beside their stream.
func (c *Coordinator) behindHere() (out []string) {
	issuer := c.keys.authorities().Issuer().ID()
	for _, l := range c.server.Live() {
		if l.Peer.Role == identity.Agent && !slices.Contains(l.CAs, issuer) && !slices.Contains(out, l.Peer.ID) {
			out = append(out, l.Peer.ID)
		}
	}
	slices.Sort(out)
	return out
}

// renewalsASecond bounds how many hosts renew at once after a change of CAs: a
// signature takes some 0.1 ms.
const renewalsASecond = 500

// tell sets what agents are told of the CAs, once this coordinator has them.
func (c *Coordinator) tell(certsPEM []byte) {
	hosts := 0
	c.store.View(func(s *deploy.State) { hosts = len(s.Hosts) })
	c.told.Store(&agentv1.Authorities{
		Hash: identity.Hash(certsPEM), WithinMs: int64(hosts) * 1000 / renewalsASecond,
	})
	c.sessions.Tell()
}
