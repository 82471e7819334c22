package state

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/deploy"
)

// A snapshot is one line of JSON, the head, and behind it lines of JSON in zstd frames,
// each with a checksum: the parts, of which the last one says how many there are. Frames
// with deployments that are settled are kept by the store, and encoded once. Equal states
// have equal bytes. Below level 3 of the rules a snapshot is one JSON value, as builds
// wrote it that know no other.
const (
	format     = 3
	formatJSON = 2
	formatAt   = 3   // level of the rules from which on snapshots have the newest format
	partItems  = 256 // about 100 KB
	frameSpan  = 64  // deployments of a frame, in the order in which they were created
)

// head says how to read the rest. Every format has these names.
type head struct {
	Format int `json:"format"`
	Rules  int `json:"rules,omitempty"`
}

// whole is a snapshot in one value.
type whole struct {
	Format  int           `json:"format"`
	State   *deploy.State `json:"state"`
	Cluster *Cluster      `json:"cluster"`
}

// part is one line; State and Cluster are without what has lines of its own.
type part struct {
	State       *deploy.State        `json:"state,omitempty"`
	Cluster     *Cluster             `json:"cluster,omitempty"`
	Hosts       []*deploy.Host       `json:"hosts,omitempty"`
	Deployments []*deploy.Deployment `json:"deployments,omitempty"`
	Requests    []request            `json:"requests,omitempty"`
	Identities  map[string]Identity  `json:"identities,omitempty"`
	Audit       []audit.Record       `json:"audit,omitempty"`
	Parts       int                  `json:"parts,omitempty"` // of the last line: lines before it
}

// request is an answered one; lines have them oldest first.
type request struct {
	ID     string         `json:"id"`
	Answer *deploy.Answer `json:"answer"`
}

// image is what there was at one entry, to be written while others are applied. What of
// it is of the fleet's size lies side by side.
type image struct {
	state      *deploy.Image
	frames     *frames
	cluster    Cluster
	identities []identity
	uses       []use
}

type identity struct {
	key string
	is  Identity
}

type use struct{ token, key, subject string }

// frames are the encoded deployments that are settled, by the number of the frame.
type frames struct {
	mu   sync.Mutex
	kept map[uint64]frame
}

type frame struct {
	of   []*deploy.Deployment
	text []byte
}

// image is taken while no entry is applied. What is slow about a snapshot is not in it.
func (s *Store) image() *image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.cluster
	i := &image{
		state: s.state.Image(), frames: &s.frames, cluster: *c,
		identities: make([]identity, 0, len(c.Identities)),
	}
	i.cluster.Coordinators, i.cluster.BreakGlass = maps.Clone(c.Coordinators), maps.Clone(c.BreakGlass)
	i.cluster.Tokens, i.cluster.Origins = maps.Clone(c.Tokens), maps.Clone(c.Origins)
	for id, t := range c.Tokens {
		for key, subject := range t.Used {
			i.uses = append(i.uses, use{id, key, subject})
		}
	}
	for key, is := range c.Identities {
		i.identities = append(i.identities, identity{key, is})
	}
	return i
}

// whole makes maps of what lies side by side; once.
func (i *image) whole() whole {
	c := &i.cluster
	c.Identities = make(map[string]Identity, len(i.identities))
	for _, one := range i.identities {
		c.Identities[one.key] = one.is
	}
	for id, t := range c.Tokens {
		t.Used = map[string]string{}
		c.Tokens[id] = t
	}
	for _, u := range i.uses {
		c.Tokens[u.token].Used[u.key] = u.subject
	}
	return whole{Format: formatJSON, State: i.state.State(), Cluster: c}
}

// Encode returns a snapshot.
func (s *Store) Encode() ([]byte, error) {
	var b bytes.Buffer
	if err := s.image().write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Snapshot implements raft.FSM.
func (s *Store) Snapshot() (raft.FSMSnapshot, error) { return s.image(), nil }

// Persist implements raft.FSMSnapshot.
func (i *image) Persist(sink raft.SnapshotSink) error {
	if err := i.write(sink); err != nil {
		_ = sink.Cancel() // the write's error says more
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (*image) Release() {}

func (i *image) write(w io.Writer) error {
	if err := i.whole().write(w, i.frames); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// write writes a snapshot; frames that are missing in kept, or of other deployments, are
// encoded, and kept instead.
func (s whole) write(w io.Writer, kept *frames) error {
	if s.State.Rules < formatAt {
		return json.NewEncoder(w).Encode(s)
	}
	if err := json.NewEncoder(w).Encode(head{Format: format, Rules: s.State.Rules}); err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	out, n := lines(z), 0
	s.parts(func(p part) bool {
		err = out.Encode(p)
		n++
		return err == nil
	})
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	settled, err := kept.of(s.State)
	if err != nil {
		return err
	}
	for _, f := range settled {
		if _, err := w.Write(f.text); err != nil {
			return err
		}
		n += len(f.of)
	}
	z.Reset(w)
	return errors.Join(lines(z).Encode(part{Parts: n}), z.Close())
}

func lines(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// of returns the frames of the settled deployments of a state, in order.
func (k *frames) of(s *deploy.State) (out []frame, err error) {
	all := map[uint64][]*deploy.Deployment{}
	for _, d := range s.Deployments {
		if s.Settled(d) {
			all[d.Seq/frameSpan] = append(all[d.Seq/frameSpan], d)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := make(map[uint64]frame, len(all))
	for _, n := range slices.Sorted(maps.Keys(all)) {
		f := frame{of: inOrder(all[n])}
		if old := k.kept[n]; slices.Equal(old.of, f.of) {
			f = old
		} else if f.text, err = encodeFrame(f.of); err != nil {
			return nil, err
		}
		kept[n], out = f, append(out, f)
	}
	k.kept = kept
	return out, nil
}

func inOrder(all []*deploy.Deployment) []*deploy.Deployment {
	slices.SortFunc(all, func(a, b *deploy.Deployment) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}

func encodeFrame(of []*deploy.Deployment) ([]byte, error) {
	var text bytes.Buffer
	z, err := zstd.NewWriter(&text, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	out := lines(z)
	for _, d := range of {
		err = errors.Join(err, out.Encode(part{Deployments: []*deploy.Deployment{d}}))
	}
	err = errors.Join(err, z.Close()) // which writes the rest
	return text.Bytes(), err
}

// parts gives the lines until yield says no, but those of settled deployments.
func (s whole) parts(yield func(part) bool) {
	rest, cluster := *s.State, *s.Cluster
	rest.Hosts, rest.Deployments, rest.Requests, rest.RequestLog, cluster.Identities = nil, nil, nil, nil, nil
	cluster.Audit.Records = nil
	if !yield(part{State: &rest, Cluster: &cluster}) {
		return
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(s.State.Hosts)), partItems) {
		if !yield(part{Hosts: each(ids, func(id string) *deploy.Host { return s.State.Hosts[id] })}) {
			return
		}
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(s.Cluster.Identities)), partItems) {
		some := make(map[string]Identity, len(ids))
		for _, id := range ids {
			some[id] = s.Cluster.Identities[id]
		}
		if !yield(part{Identities: some}) {
			return
		}
	}
	for ids := range slices.Chunk(s.State.RequestLog, partItems) {
		if !yield(part{Requests: each(ids, func(id string) request { return request{id, s.State.Requests[id]} })}) {
			return
		}
	}
	for records := range slices.Chunk(s.Cluster.Audit.Records, partItems) {
		if !yield(part{Audit: records}) {
			return
		}
	}
	var unsettled []*deploy.Deployment
	for _, d := range s.State.Deployments {
		if !s.State.Settled(d) {
			unsettled = append(unsettled, d)
		}
	}
	for _, d := range inOrder(unsettled) {
		if !yield(part{Deployments: []*deploy.Deployment{d}}) {
			return
		}
	}
}

// read decodes a snapshot of any format that this build reads. What is derived is
// missing in the state.
func read(r io.Reader, known int) (out whole, err error) {
	first := json.NewDecoder(r)
	in := struct {
		head
		State   *deploy.State `json:"state"`
		Cluster *Cluster      `json:"cluster"`
	}{}
	if err := first.Decode(&in); err != nil {
		return out, fmt.Errorf("decode snapshot: %w", err)
	}
	switch {
	case in.Format > format || in.Format == formatJSON && (in.State == nil || in.Cluster == nil):
		return out, fmt.Errorf("snapshot has format %d, this coordinator reads %d; upgrade it", in.Format, format)
	case in.Format < formatJSON:
		return out, ErrBefore
	case in.Format == formatJSON:
		return whole{State: in.State, Cluster: in.Cluster}, checkRules(in.State.Rules, known)
	}
	if err := checkRules(in.Rules, known); err != nil {
		return out, err
	}
	err = out.readParts(io.MultiReader(first.Buffered(), r))
	if err == nil && out.State.Rules != in.Rules {
		err = fmt.Errorf("its head is of level %d, its state of %d", in.Rules, out.State.Rules)
	}
	if err != nil {
		return out, fmt.Errorf("decode snapshot: %w", err)
	}
	return out, nil
}

func (s *whole) readParts(r io.Reader) error {
	end := make([]byte, 1)
	if _, err := io.ReadFull(r, end); err != nil {
		return fmt.Errorf("it ends with its head: %w", err)
	}
	if end[0] != '\n' {
		return fmt.Errorf("%q follows its head, not the end of the line", end)
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	parts, err := decodeParts(bufio.NewReaderSize(z, 1<<20))
	if err != nil {
		return err
	}
	if len(parts) == 0 || parts[0].State == nil || parts[0].Cluster == nil {
		return errors.New("it does not begin with the state")
	}
	if n := len(parts) - 1; n == 0 || parts[n].Parts != n {
		return fmt.Errorf("it has %d parts and ends with one that counts %d", n, parts[n].Parts)
	}
	s.begin(parts[0])
	for _, p := range parts {
		s.add(p)
	}
	return nil
}

// decodeParts decodes lines, as many at once as there are cores, to the end: behind the
// last one is a checksum.
func decodeParts(r *bufio.Reader) ([]part, error) {
	var parts []*part
	var decoding errgroup.Group
	decoding.SetLimit(runtime.GOMAXPROCS(0))
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("part %d: %w", len(parts), err), decoding.Wait())
		}
		p, n := &part{}, len(parts)
		parts = append(parts, p)
		decoding.Go(func() error {
			if err := json.Unmarshal(line, p); err != nil {
				return fmt.Errorf("part %d: %w", n, err)
			}
			return nil
		})
	}
	err := decoding.Wait()
	return each(parts, func(p *part) part { return *p }), err
}

func (s *whole) begin(p part) {
	s.State, s.Cluster = p.State, p.Cluster
	if s.State != nil {
		s.State.Hosts, s.State.Deployments = map[string]*deploy.Host{}, map[string]*deploy.Deployment{}
		s.State.Requests = map[string]*deploy.Answer{}
	}
}

func (s *whole) add(p part) {
	for _, h := range p.Hosts {
		s.State.Hosts[h.ID] = h
	}
	for _, d := range p.Deployments {
		s.State.Deployments[d.ID] = d
	}
	for _, r := range p.Requests {
		s.State.Requests[r.ID] = r.Answer
		s.State.RequestLog = append(s.State.RequestLog, r.ID)
	}
	s.Cluster.Audit.Records = append(s.Cluster.Audit.Records, p.Audit...)
	if s.Cluster.Identities == nil {
		s.Cluster.Identities = p.Identities
		return
	}
	maps.Copy(s.Cluster.Identities, p.Identities)
}

// CheckSnapshot says whether a build that knows rules up to a level may restore
// a snapshot.
func CheckSnapshot(r io.Reader, known int) error {
	_, err := read(r, known)
	return err
}

// Restore implements raft.FSM. On an error the state is what it was.
func (s *Store) Restore(r io.ReadCloser) error {
	defer r.Close()
	in, err := read(r, s.known)
	if err != nil {
		return err
	}
	in.State.Rebuild()
	s.mu.Lock()
	defer s.mu.Unlock()
	in.State.Violated, in.State.Amend = s.violated, s.state.Amend
	s.state, s.cluster = in.State, in.Cluster
	s.windows.restored()
	close(s.changed)
	s.changed = make(chan struct{})
	s.watches.reached(s.state.Index)
	s.watches.wakeAll()
	return nil
}
