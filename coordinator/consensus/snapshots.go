package consensus

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// shots are the snapshots on disk. Raft's store sums up their content and not what
// is said of it: as of which entry it is, and who votes. So a content begins here
// with a label, the sum of that; raft and the other nodes do not see it. A snapshot
// whose name file cannot be read is damage, and no reason to fall back to an older
// one, behind which the log has a gap.
type shots struct {
	raft.SnapshotStore
	dir string
}

func openShots(dir string, log hclog.Logger) (*shots, error) {
	s, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshots, log)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	return &shots{SnapshotStore: s, dir: filepath.Join(dir, "snapshots")}, nil
}

func label(index, term uint64, c raft.Configuration, at uint64) []byte {
	place := binary.BigEndian.AppendUint64(nil, index)
	place = binary.BigEndian.AppendUint64(place, term)
	return sum(binary.BigEndian.AppendUint64(place, at), raft.EncodeConfiguration(c))
}

// Create implements raft.SnapshotStore.
func (s *shots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64,
	t raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, c, at, t)
	if err != nil {
		return nil, err
	}
	if _, err := sink.Write(label(index, term, c, at)); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// List implements raft.SnapshotStore.
func (s *shots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.SnapshotStore.List()
	for _, m := range list {
		m.Size -= sumSize
	}
	return list, err
}

// Open implements raft.SnapshotStore.
func (s *shots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, s.damaged(id, err)
	}
	said := make([]byte, sumSize)
	_, err = io.ReadFull(r, said)
	if err == nil && !bytes.Equal(said, label(m.Index, m.Term, m.Configuration, m.ConfigurationIndex)) {
		err = errors.New("what its meta.json says of it is not what was written")
	}
	if err != nil {
		return nil, nil, errors.Join(s.damaged(id, err), r.Close())
	}
	m.Size -= sumSize
	return m, r, nil
}

func (s *shots) damaged(id string, err error) error {
	return &Damaged{File: filepath.Join(s.dir, id), What: "the snapshot", Err: err}
}

// verify opens every snapshot: those that raft overlooks too. Raft removes those that are
// older than the newest ones file by file, and may have been killed over it: such a rest
// is removed. Without as many whole ones that are newer, it is damage.
func (s *shots) verify() error {
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read the list of snapshots: %w", err)
	}
	var whole []string
	rests := map[string]error{}
	for _, e := range all {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		switch err := s.look(e.Name()); {
		case errors.Is(err, fs.ErrNotExist):
			rests[e.Name()] = err
		case err != nil:
			return err
		default:
			whole = append(whole, e.Name())
		}
	}
	for name, err := range rests {
		newer := slices.DeleteFunc(slices.Clone(whole), func(other string) bool { return !newerShot(other, name) })
		if len(newer) < snapshots {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("remove the rest of a snapshot: %w", err)
		}
	}
	return nil
}

// look reads one snapshot.
func (s *shots) look(name string) error {
	var m raft.SnapshotMeta
	text, err := os.ReadFile(filepath.Join(s.dir, name, "meta.json"))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil && (m.ID != name || m.Version != raft.SnapshotVersionMax) {
		err = fmt.Errorf("its meta.json is of %q, version %d", m.ID, m.Version)
	}
	if err != nil {
		return s.damaged(name, err)
	}
	_, r, err := s.Open(name)
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return s.damaged(name, err)
	}
	return nil
}

// newerShot compares names as raft does: by term, index and time.
func newerShot(a, b string) bool {
	var x, y [3]uint64
	for name, to := range map[string]*[3]uint64{a: &x, b: &y} {
		if n, err := fmt.Sscanf(name, "%d-%d-%d", &to[0], &to[1], &to[2]); n != 3 || err != nil {
			return false
		}
	}
	return slices.Compare(x[:], y[:]) > 0
}
