package coordinator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Recover makes the coordinator in a folder, which does not run, the only member
// of its cluster, for a majority that will not come back. The cluster observes
// from its next start on, in a new epoch, until a person activates it. Epoch 0 is
// the next one. It can be called again when it was interrupted.
func Recover(dir, name, reason string, epoch uint64) (uint64, error) {
	o := &Options{Dir: dir, Name: name}
	if err := o.note(starting{Interrupted: "dcoord recover"}); err != nil {
		return 0, err
	}
	fsm := state.New(deploy.RulesKnown)
	if err := consensus.Recover(filepath.Join(dir, "raft"), name, fsm); err != nil {
		return 0, errors.Join(err, o.started())
	}
	return o.begin(fsm, reason, epoch, 1)
}

// sinceBackup is how much higher the epoch of a restored cluster is than that of its
// backup: whatever was recovered after the backup was made is in an older one, and
// commands nobody should its disk turn up.
const sinceBackup = 100

// begin notes the epoch that the next start begins.
func (o *Options) begin(fsm *state.Store, reason string, epoch, higher uint64) (uint64, error) {
	var now uint64
	fsm.ViewCluster(func(c *state.Cluster) { now = c.Epoch })
	if epoch == 0 {
		epoch = now + higher
	}
	if epoch <= now {
		return 0, fmt.Errorf("epoch %d: the cluster is in epoch %d already; use a higher one", epoch, now)
	}
	return epoch, o.note(starting{Epoch: epoch, Reason: reason})
}

// header is the first line of a backup; the state's bytes follow.
type header struct {
	Backup  int    `json:"groundswell_backup"` // format
	Cluster string `json:"cluster"`
	Index   uint64 `json:"index"`
	Epoch   uint64 `json:"epoch"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// backupFormat is the only one.
const backupFormat = 1

// backupChunk bounds a message of a backup.
const backupChunk = 256 << 10

// Backup sends the state as of the last entry applied here.
func (s *membersService) Backup(_ *controlv1.BackupRequest, out controlv1.ControlService_BackupServer) error {
	b, err := s.c.store.Encode()
	if err != nil {
		return err
	}
	fsm := state.New(s.c.o.rules())
	if err := fsm.Restore(io.NopCloser(bytes.NewReader(b))); err != nil { // nothing that cannot be restored is a backup
		return err
	}
	sum := sha256.Sum256(b)
	h := header{Backup: backupFormat, Bytes: len(b), SHA256: hex.EncodeToString(sum[:])}
	fsm.View(func(st *deploy.State) { h.Index = st.Index })
	fsm.ViewCluster(func(c *state.Cluster) { h.Cluster, h.Epoch = c.ID, c.Epoch })
	line, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode backup: %w", err)
	}
	all := append(append(line, '\n'), b...)
	for len(all) > 0 {
		n := min(len(all), backupChunk)
		if err := out.Send(&controlv1.BackupChunk{Data: all[:n]}); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// readBackup checks a backup and returns its state.
func readBackup(file string) (header, []byte, error) {
	var h header
	f, err := os.Open(file)
	if err != nil {
		return h, nil, fmt.Errorf("read backup: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	r := bufio.NewReader(f)
	line, err := r.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &h) != nil || h.Backup == 0 {
		return h, nil, fmt.Errorf("%s is no backup of `dctl cluster backup`", file)
	}
	if h.Backup != backupFormat {
		return h, nil, fmt.Errorf("%s has format %d, this build reads %d", file, h.Backup, backupFormat)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return h, nil, fmt.Errorf("read backup: %w", err)
	}
	if sum := sha256.Sum256(b); len(b) != h.Bytes || hex.EncodeToString(sum[:]) != h.SHA256 {
		return h, nil, fmt.Errorf("%s is damaged: %d of %d bytes, or other ones than were written", file, len(b),
			h.Bytes)
	}
	return h, b, nil
}

// Restore makes a folder that holds a coordinator's keys and no log the only
// member of a cluster with the state of a backup, in a new epoch; see Recover.
// Without a key or certificate of its own it gets one from the CA.
func Restore(dir, name, file, reason string, epoch uint64) (uint64, error) {
	o := &Options{Dir: dir, Name: name}
	h, data, err := readBackup(file)
	if err != nil {
		return 0, err
	}
	fsm := state.New(deploy.RulesKnown)
	if err := fsm.Restore(io.NopCloser(bytes.NewReader(data))); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	if err := o.ownIdentity(fsm); err != nil {
		return 0, err
	}
	if consensus.HasState(filepath.Join(dir, "raft")) {
		return 0, fmt.Errorf("%s holds a log already; move %s away to restore a backup", dir,
			filepath.Join(dir, "raft"))
	}
	if err := o.note(starting{Interrupted: "dcoord restore"}); err != nil {
		return 0, err
	}
	address := "127.0.0.1:7102" // corrected when it leads, which alone it does at any address
	fsm.ViewCluster(func(c *state.Cluster) {
		if m, ok := c.Coordinators[name]; ok {
			address = m.Raft
		}
	})
	if err := consensus.Seed(filepath.Join(dir, "raft"), name, address, h.Index, data); err != nil {
		return 0, err
	}
	return o.begin(fsm, reason, epoch, sinceBackup)
}

// ownIdentity makes sure that the folder holds the CA of a state and gives the
// coordinator a certificate if there is none.
func (o *Options) ownIdentity(fsm *state.Store) error {
	dir := filepath.Join(o.Dir, identityDir)
	caPEM, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return fmt.Errorf("%s lacks the keys of a coordinator of the cluster (ca.key, gossip.key, identity/ca.crt): %w",
			o.Dir, err)
	}
	cas, err := readCAs(o.Dir, caPEM, o.CertificateLife)
	if err != nil {
		return err
	}
	same := false
	fsm.ViewCluster(func(c *state.Cluster) {
		ids, _ := identity.IDs(c.CA)
		same = len(ids) > 0 && cas.Holds(ids[0])
		for _, id := range ids { // one that was retired since must not come back
			same = same && identity.Only(caPEM, id) != nil
		}
	})
	if !same {
		return fmt.Errorf(
			"the backup is of a cluster with another CA than that in %s, or of the time before its CA was "+
				"replaced; restore a newer one", dir)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, gossipFile)); err != nil {
		return fmt.Errorf("%s lacks the ring's key: %w", o.Dir, err)
	}
	if cred, err := identity.Load(dir); err == nil {
		if who, err := cred.Peer(); err == nil && who.ID == o.Name {
			return nil
		}
	}
	keyPEM, csr, err := identity.KeptKey(dir)
	if err != nil {
		return err
	}
	cert, err := cas.Issue(csr, identity.Coordinator, o.Name)
	if err != nil {
		return err
	}
	return identity.Save(dir, cert, keyPEM, caPEM)
}

// beginEpoch makes the new epoch the first entry of a recovered or restored
// cluster, before anything is decided.
func (c *Coordinator) beginEpoch(ctx context.Context) error {
	var now uint64
	c.store.ViewCluster(func(s *state.Cluster) { now = s.Epoch })
	if c.o.epoch <= now {
		return nil
	}
	c.o.Log.Warn("a new epoch begins; the cluster observes until `dctl cluster activate`",
		"epoch", c.o.epoch, "reason", c.o.reason)
	return c.log.cluster(ctx, state.EpochBegun{
		Epoch: c.o.epoch, Coordinator: c.o.Name, Key: c.keys.cred.Fingerprint(), Reason: c.o.reason,
	})
}

// epoch is the cluster's, and whether it only observes. One that is about to
// begin counts: no host may act on the state of before.
func (c *Coordinator) epoch() (epoch uint64, held bool) {
	c.store.ViewCluster(func(s *state.Cluster) { epoch, held = s.Epoch, s.Held != "" })
	if c.o.epoch > epoch {
		return c.o.epoch, true
	}
	return epoch, held
}

// activated waits until the cluster acts, or ctx ends.
func (c *Coordinator) activated(ctx context.Context) {
	for {
		changed := c.store.Changed()
		if _, held := c.epoch(); !held {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// ActivateEpoch lets the cluster act again.
func (s *membersService) ActivateEpoch(
	ctx context.Context, r *controlv1.ActivateEpochRequest,
) (*controlv1.ActivateEpochResponse, error) {
	err := s.c.log.cluster(ctx, state.EpochActivated{Request: s.c.request(ctx, r.Mutation), Epoch: r.Epoch})
	return &controlv1.ActivateEpochResponse{Index: s.c.index()}, err
}
