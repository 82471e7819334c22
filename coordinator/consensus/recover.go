package consensus

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// offline is the state of a node that does not run.
type offline struct {
	conf  *raft.Config
	store *disk
	snaps raft.SnapshotStore
	trans raft.Transport
}

func openOffline(dir, name string) (*offline, error) {
	log := hclog.New(&hclog.LoggerOptions{Name: "raft", Output: io.Discard})
	store := newDisk(dir)
	if err := store.open(); err != nil {
		return nil, fmt.Errorf("%w (does the coordinator still run?)", err)
	}
	snaps, err := openShots(dir, log)
	if err == nil {
		store.snaps = snaps
		err = errors.Join(snaps.verify(), store.verify())
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = raft.ServerID(name), log, true
	_, trans := raft.NewInmemTransport("")
	return &offline{conf: c, store: store, snaps: snaps, trans: trans}, nil
}

// Recover makes the node in a folder, which does not run, the only voter of its
// cluster, with everything that is in its log. Fsm is brought to that state. An
// entry that the node had and no majority did counts from then on; one that it
// lacks is lost.
func Recover(dir, name string, fsm raft.FSM) error {
	if !HasState(dir) {
		return fmt.Errorf("%s holds no log", dir)
	}
	o, err := openOffline(dir, name)
	if err != nil {
		return err
	}
	defer func() { _ = o.store.Close() }() // everything was written before
	old, err := raft.GetConfiguration(o.conf, fsm, o.store, o.store, o.snaps, o.trans)
	if err != nil {
		return fmt.Errorf("read the cluster's configuration in %s: %w", dir, err)
	}
	for _, s := range old.Servers {
		if s.ID == o.conf.LocalID {
			s.Suffrage = raft.Voter
			alone := raft.Configuration{Servers: []raft.Server{s}}
			if err := raft.RecoverCluster(o.conf, fsm, o.store, o.store, o.snaps, o.trans, alone); err != nil {
				return fmt.Errorf("recover %s in %s: %w", name, dir, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%s is no member by the log in %s, which knows %v", name, dir, old.Servers)
}

// Seed makes a folder without a log the only voter of a cluster whose state is
// a snapshot of the FSM as of an index.
func Seed(dir, name, address string, index uint64, snapshot []byte) error {
	if HasState(dir) {
		return fmt.Errorf("%s holds a log already; a backup is restored into an empty folder", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create raft folder: %w", err)
	}
	o, err := openOffline(dir, name)
	if err != nil {
		return err
	}
	defer func() { _ = o.store.Close() }() // the snapshot is synced by its own Close
	alone := raft.Configuration{Servers: []raft.Server{{ID: o.conf.LocalID, Address: raft.ServerAddress(address)}}}
	sink, err := o.snaps.Create(raft.SnapshotVersionMax, index, 1, alone, index, o.trans)
	if err != nil {
		return fmt.Errorf("make a snapshot in %s: %w", dir, err)
	}
	if _, err := sink.Write(snapshot); err != nil {
		return errors.Join(fmt.Errorf("write a snapshot in %s: %w", dir, err), sink.Cancel())
	}
	return sink.Close()
}
