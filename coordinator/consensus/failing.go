package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// DiskFailed says that the disk of this node hangs or fails. The node is of no use
// from then on, see Options.Failed.
type DiskFailed struct {
	Dir  string
	Err  error
	Said string // by raft, just before
}

func (e *DiskFailed) Error() string {
	said := ""
	if e.Said != "" {
		said = " (raft: " + e.Said + ")"
	}
	return fmt.Sprintf("the disk of this coordinator hangs or fails, so it ends and leaves the work to the others: "+
		"%s: %v%s; see to the disk and start it again, it waits until the disk answers", e.Dir, e.Err, said)
}

// Unwrap returns what happened.
func (e *DiskFailed) Unwrap() error { return e.Err }

// Kind names the error for a transport.
func (e *DiskFailed) Kind() string { return "unavailable" }

// Damaged says that what is on disk is not what was written.
type Damaged struct {
	File, What string // what is entry 7, a snapshot
	Err        error
}

func (e *Damaged) Error() string {
	return fmt.Sprintf("%s is damaged: %s: %v; nothing of it is used. The other coordinators go on: "+
		"`dctl cluster remove` this one, empty its folder and join again with a token; "+
		"without others, `dcoord restore` a backup", e.File, e.What, e.Err)
}

// Unwrap returns what is wrong.
func (e *Damaged) Unwrap() error { return e.Err }

// tell ends the node: it tells Options.Failed why, once.
func (d *disk) tell(why error) {
	d.mu.Lock()
	first := d.failed == nil
	if first {
		d.failed = why
	}
	d.mu.Unlock()
	if !first {
		return
	}
	if f := (*DiskFailed)(nil); errors.As(why, &f) && d.said != nil {
		f.Said = d.said.newest()
	}
	if d.failing != nil {
		d.failing(why)
	}
}

// fail ends a running node for a write or read that failed, and never returns to
// raft, which would go on without what it has written, or panic. Before raft runs
// it returns the error.
func (d *disk) fail(what string, err error) error {
	if damaged := (*Damaged)(nil); !errors.As(err, &damaged) {
		err = &DiskFailed{Dir: d.dir, Err: fmt.Errorf("%s: %w", what, err)}
	}
	if !d.running.Load() {
		return err
	}
	d.tell(err)
	select {}
}

// errPages is a file that bbolt cannot make sense of.
var errPages = errors.New("its pages make no sense")

// guarded makes an error of what bbolt panics with on a damaged file, and of the
// fault of a page that cannot be read.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errPages, v)
		}
	}()
	return f()
}

// lastWords keeps the newest warning of raft's own log, which explains a stop.
type lastWords struct {
	mu   sync.Mutex
	text string
	at   time.Time
}

// recent is how old a warning may be and explain a stop.
const recent = 10 * time.Second

// Write implements io.Writer for raft's log, a JSON object a line.
func (w *lastWords) Write(line []byte) (int, error) {
	var said map[string]any
	if json.Unmarshal(line, &said) != nil || said["@level"] != "error" && said["@level"] != "warn" {
		return len(line), nil
	}
	text := fmt.Sprint(said["@message"])
	if err, ok := said["error"]; ok {
		text += fmt.Sprintf(": %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text, w.at = strings.ReplaceAll(text, "\n", " "), time.Now()
	return len(line), nil
}

// newest returns what was said just now, "" for nothing.
func (w *lastWords) newest() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) > recent {
		return ""
	}
	return w.text
}
