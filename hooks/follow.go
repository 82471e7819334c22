package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// followPoll is how often a followed log is looked at: under what a person
// notices.
const followPoll = 100 * time.Millisecond

// followChunk is the most that one Write of Follow gets, in bytes.
const followChunk = 64 << 10

// Follow copies the log of a run from offset to w until the run has ended and
// everything is copied, or ctx ends. It returns the offset to resume from; a
// part that the log gave up is skipped. A run that does not exist yet is
// waited for.
func (r *Runner) Follow(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	dir, err := r.runDir(id)
	if err != nil {
		return offset, err
	}
	for {
		over := dir.over()
		next, err := copyLog(dir.file("log"), offset, w)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return next, err
		}
		if offset = next; over {
			return offset, nil
		}
		select {
		case <-ctx.Done():
			return offset, ctx.Err()
		case <-time.After(followPoll):
		}
	}
}

// over reports whether the log is complete, left-over output excepted.
func (d runDir) over() bool {
	_, err := os.Stat(d.file("outcome"))
	return err == nil
}

func copyLog(path string, offset int64, w io.Writer) (int64, error) {
	for {
		data, next, err := ReadLog(path, offset, followChunk)
		if err != nil || len(data) == 0 {
			return next, err
		}
		if _, err := w.Write(data); err != nil {
			return offset, fmt.Errorf("pass log on: %w", err)
		}
		offset = next
	}
}
