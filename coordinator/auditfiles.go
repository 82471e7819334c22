package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/durable"
)

// auditFiles are the lines of the audit on this coordinator's disk, one file behind the
// other, those of each epoch apart: behind a restored backup the chain goes on from an
// earlier record. They are only appended to, and nobody here removes one.
//
// A crash can leave a last line that is not whole, which the next open cuts off: it was
// not synced, so nobody has been told that it is there. It is written again from the
// state, which forgets a record only once a leader's files have it, synced.
type auditFiles struct {
	dir   string
	epoch uint64
	file  *os.File
	size  int64
	last  audit.Record // Seq 0: there is none
	// damaged is why the newest file is not gone on with; another one is begun.
	damaged error
}

// mostAuditFile is after how many bytes the next file begins.
const mostAuditFile = 64 << 20

// openAuditFiles opens the files of an epoch at their end.
func openAuditFiles(dir string, epoch uint64) (*auditFiles, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &auditFiles{dir: dir, epoch: epoch}
	names, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("%04d-*.jsonl", epoch)))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		if err := f.resume(name); err != nil {
			return nil, err
		}
		if f.last.Seq > 0 || f.damaged != nil {
			break
		}
		if err := errors.Join(f.close(), os.Remove(name)); err != nil { // a crash came before its first record
			return nil, err
		}
	}
	return f, nil
}

// resume goes on at the end of a file.
func (f *auditFiles) resume(name string) (err error) {
	if f.file, err = os.OpenFile(name, os.O_RDWR, 0); err != nil {
		return err
	}
	_, records, whole, err := audit.ReadLines(f.file)
	if err != nil {
		f.damaged = fmt.Errorf("%s: %w", name, err)
		return f.close()
	}
	if err := f.file.Truncate(whole); err != nil {
		return err
	}
	if _, err := f.file.Seek(whole, 0); err != nil {
		return err
	}
	if f.size = whole; len(records) > 0 {
		f.last = records[len(records)-1]
	}
	return nil
}

// append writes records behind those that are there; they are durable on return.
func (f *auditFiles) append(cluster string, before audit.Sum, records []audit.Record) error {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	if f.file != nil && (f.size > mostAuditFile || !bytes.Equal(before, f.last.Sum)) {
		if err := f.close(); err != nil {
			return err
		}
	}
	if f.file == nil {
		if err := f.create(records[0].Seq); err != nil {
			return err
		}
		if err := lines.Encode(audit.Header{
			Format: audit.FormatLines, Cluster: cluster, Epoch: f.epoch, Before: before,
		}); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	n, err := f.file.Write(out.Bytes())
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil { // what of it is there is found at the next open
		return errors.Join(err, f.close())
	}
	f.size, f.last = f.size+int64(n), records[len(records)-1]
	return nil
}

// create begins a file, under a name that none has.
func (f *auditFiles) create(first uint64) (err error) {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%04d-%012d.jsonl", f.epoch, first)
		if n > 1 {
			name = fmt.Sprintf("%04d-%012d-%d.jsonl", f.epoch, first, n)
		}
		f.file, err = os.OpenFile(filepath.Join(f.dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if f.size = 0; err != nil {
			return err
		}
		return durable.SyncDir(f.dir)
	}
}

func (f *auditFiles) close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

const (
	// exportEvery bounds how often files are synced, which raft's log waits for on the
	// same disk.
	exportEvery = time.Second
	exportRetry = 10 * time.Second // after an error, as of a full disk
	exportBatch = 1000             // records in one write
)

// exportAudit writes the audit to this coordinator's files as it comes, until ctx ends,
// and says in the log how far they have it while this coordinator leads: only then does
// the state forget old records.
func (c *Coordinator) exportAudit(ctx context.Context) error {
	var files *auditFiles
	for {
		changed := c.store.Changed()
		err := c.exportNew(ctx, &files)
		pause := exportEvery
		if err != nil && ctx.Err() == nil {
			c.o.Log.Error("the audit is not exported; the state keeps what is not, up to a limit",
				"dir", c.auditDir(), "error", err)
			files, pause = nil, exportRetry
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := c.exportNew(context.Background(), &files) // what came last
			if files != nil {
				err = errors.Join(err, files.close())
			}
			if err != nil {
				c.o.Log.Warn("the end of the audit is exported at the next start", "error", err)
			}
			return nil
		}
		backoff.Pause(ctx, pause)
	}
}

func (c *Coordinator) auditDir() string { return filepath.Join(c.o.Dir, "audit") }

// exportNew writes what the files lack. An artifact store that keeps history would be
// written here too, before the log is told.
func (c *Coordinator) exportNew(ctx context.Context, files **auditFiles) error {
	for {
		var cluster string
		var epoch uint64
		var due bool
		var before audit.Sum
		var records []audit.Record
		c.store.ViewCluster(func(s *state.Cluster) { cluster, epoch, due = s.ID, s.Epoch, s.Audit.Due() })
		if *files == nil || (*files).epoch != epoch {
			if cluster == "" {
				return nil // nothing was read yet
			}
			if *files != nil {
				if err := (*files).close(); err != nil {
					return err
				}
			}
			opened, err := openAuditFiles(c.auditDir(), epoch)
			if err != nil {
				return err
			}
			if *files = opened; opened.damaged != nil {
				c.o.Log.Error("a file of the audit was changed or damaged; another one is begun", "error", opened.damaged)
			}
		}
		f := *files
		c.store.ViewCluster(func(s *state.Cluster) { before, records = s.Audit.After(f.last.Seq, exportBatch) })
		if len(records) == 0 {
			if due && c.log.leading() && ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, readBound)
				defer cancel()
				return c.log.cluster(short, state.AuditExported{Coordinator: c.o.Name, Upto: f.last.Seq})
			}
			return nil
		}
		if err := f.append(cluster, before, records); err != nil {
			return err
		}
	}
}
