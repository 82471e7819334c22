package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Every entry, vote and term on disk ends with a checksum of itself and its place,
// as no page of bbolt has one: what was changed on disk is never served as truth.
// The sum of an entry is the end of its Extensions on this disk alone; raft and
// the other nodes do not see it.

// sumSize is the size of a CRC-32C.
const sumSize = 4

func sum(parts ...[]byte) []byte {
	c := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for _, p := range parts {
		_ = binary.Write(c, binary.BigEndian, uint64(len(p))) // a hash takes everything
		_, _ = c.Write(p)
	}
	return c.Sum(nil)
}

func sumOf(l *raft.Log, extensions []byte) []byte {
	place := binary.BigEndian.AppendUint64(nil, l.Index)
	place = binary.BigEndian.AppendUint64(place, l.Term)
	return sum(append(place, byte(l.Type)), l.Data, extensions)
}

// summed returns copies of entries with their sums.
func summed(logs []*raft.Log) []*raft.Log {
	out := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = append(bytes.Clone(l.Extensions), sumOf(l, l.Extensions)...)
		out[i] = &c
	}
	return out
}

// errNoSum is an entry as it was before entries had sums.
var errNoSum = errors.New("it has no checksum; if it was written before logs had checksums, no release reads it, and " +
	"you begin anew: stop every coordinator, move their folders away, bootstrap one, join the others")

// unsum takes the sum off an entry that was read, if it is right.
func unsum(index uint64, l *raft.Log) error {
	n := len(l.Extensions) - sumSize
	switch {
	case l.Index != index:
		return fmt.Errorf("it says that it is entry %d", l.Index)
	case n < 0:
		return errNoSum
	case !bytes.Equal(l.Extensions[n:], sumOf(l, l.Extensions[:n])):
		return errors.New("its checksum is wrong")
	}
	if l.Extensions = l.Extensions[:n:n]; n == 0 {
		l.Extensions = nil
	}
	return nil
}

// file is where the log is.
func (d *disk) file() string { return filepath.Join(d.dir, "raft.db") }

// damaged names an entry.
func (d *disk) damaged(index uint64, err error) error {
	return &Damaged{File: d.file(), What: fmt.Sprintf("entry %d", index), Err: err}
}

// verify reads the whole log, which bytes bound, before raft does: every entry is
// whole, none is missing, and the first one follows the newest snapshot.
func (d *disk) verify() error {
	first, err1 := d.FirstIndex()
	last, err2 := d.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, key := range [][]byte{[]byte("CurrentTerm"), []byte("LastVoteTerm"), []byte("LastVoteCand")} {
		if _, err := d.Get(key); err != nil && !errors.Is(err, errNoKey) {
			return err
		}
	}
	begins, err := d.begins()
	if err != nil {
		return err
	}
	if first > begins {
		return d.damaged(begins, fmt.Errorf("it is missing, the log begins with %d", first))
	}
	for i := first; first > 0 && i <= last; i++ {
		if err := d.GetLog(i, new(raft.Log)); errors.Is(err, raft.ErrLogNotFound) {
			return d.damaged(i, errors.New("it is missing"))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// begins returns the first entry that is in no snapshot.
func (d *disk) begins() (uint64, error) {
	list, err := d.snaps.List()
	if err != nil || len(list) == 0 {
		return 1, err
	}
	return list[0].Index + 1, nil
}
