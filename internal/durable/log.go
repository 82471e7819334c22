package durable

import (
	"errors"
	"fmt"
	"iter"
	"os"
)

// ErrCorrupt says that a record which had been acknowledged as durable is
// damaged: intact records follow the damage, so it is not a torn tail. The
// file is left as it is.
var ErrCorrupt = errors.New("record file is damaged before its last record")

// ErrBroken says that an earlier write failed and could not be taken back, so
// what the file holds is unknown until it is opened again.
var ErrBroken = errors.New("record file is unusable after a failed write")

// Log is an append-only file of records. A record is durable when Append
// returns. It is not safe for concurrent use, and one process at a time may
// have it open: both are the caller's to ensure.
type Log struct {
	path    string
	file    *os.File
	size    int64
	dropped int64
	broken  bool
}

// OpenLog opens or makes the record file at path and hands every record to
// replay in the order of writing; the slice is replay's to keep. A torn last
// record, which no Append has acknowledged, is cut off. An error of replay
// ends the opening.
func OpenLog(path string, replay func(record []byte) error) (*Log, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		err = WriteFile(path, nil, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("open record file: %w", err)
	}
	good, err := replayFrames(path, data, replay)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open record file: %w", err)
	}
	l := &Log{path: path, file: f, size: int64(good), dropped: int64(len(data) - good)}
	if err := l.cutTail(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func replayFrames(path string, data []byte, replay func([]byte) error) (good int, err error) {
	for good < len(data) {
		payload, size, ok := nextFrame(data[good:])
		if !ok {
			if holdsFrame(data[good:]) {
				return good, fmt.Errorf("read %s at byte %d: %w; restore it or move it away", path, good, ErrCorrupt)
			}
			break
		}
		if err := replay(payload); err != nil {
			return good, fmt.Errorf("replay %s at byte %d: %w", path, good, err)
		}
		good += size
	}
	return good, nil
}

func (l *Log) cutTail() error {
	if l.dropped == 0 {
		return nil
	}
	if err := l.file.Truncate(l.size); err != nil {
		return fmt.Errorf("cut the torn tail of %s: %w", l.path, err)
	}
	return l.sync()
}

// Append writes the records in order and returns when they are durable. All
// of one call share one write and one fsync. After an error none of them
// counts: the file is cut back to what it held, and where that fails too every
// later call answers ErrBroken.
func (l *Log) Append(records ...[]byte) error {
	if l.broken {
		return fmt.Errorf("append to %s: %w", l.path, ErrBroken)
	}
	var buf []byte
	for _, r := range records {
		if len(r) > MaxRecord {
			return fmt.Errorf("append to %s: a record of %d bytes is over the limit of %d", l.path, len(r), MaxRecord)
		}
		buf = appendFrame(buf, r)
	}
	if _, err := l.file.WriteAt(buf, l.size); err != nil {
		l.broken = l.file.Truncate(l.size) != nil
		return fmt.Errorf("append to %s: %w", l.path, err)
	}
	if err := l.sync(); err != nil {
		// What the kernel dropped after a failed fsync cannot be known.
		l.broken = true
		return err
	}
	l.size += int64(len(buf))
	return nil
}

func (l *Log) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", l.path, err)
	}
	return nil
}

// Rewrite replaces the whole content by records, atomically: after a crash the
// file holds all of the old or all of the new ones.
func (l *Log) Rewrite(records iter.Seq[[]byte]) error {
	var buf []byte
	for r := range records {
		if len(r) > MaxRecord {
			return fmt.Errorf("rewrite %s: a record of %d bytes is over the limit of %d", l.path, len(r), MaxRecord)
		}
		buf = appendFrame(buf, r)
	}
	if err := WriteFile(l.path, buf, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		l.broken = true // the open file is the replaced one
		return fmt.Errorf("open rewritten record file: %w", err)
	}
	old := l.file
	l.file, l.size, l.broken = f, int64(len(buf)), false
	return old.Close()
}

// Size is the length of the file in bytes.
func (l *Log) Size() int64 { return l.size }

// Dropped is the length of the torn tail that opening cut off, for the log
// line of the opener.
func (l *Log) Dropped() int64 { return l.dropped }

// Close releases the file. Every acknowledged record is already durable.
func (l *Log) Close() error { return l.file.Close() }
