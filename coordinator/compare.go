package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/durable"
)

// Replicas compare what the log has done to their states, window by window: each
// asks the others and judges itself alone. One of which a majority of the voters
// has another state ends at once and does not start again: what it would answer is
// not true, and what it would vote with is neither.
const compareBeats = 20 // of heartbeats between comparisons: 10 s

// build tells builds apart: another one may encode the same state otherwise.
func build() string {
	info, _ := debug.ReadBuildInfo()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(info.String())))[:16]
}

// compare compares until ctx ends.
func (c *Coordinator) compare(ctx context.Context) error {
	look := time.NewTicker(compareBeats * c.o.heartbeat())
	defer look.Stop()
	said := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		mine := c.store.Windows()
		if len(mine) == 0 || mine[len(mine)-1].Number == said {
			continue // nothing new since
		}
		number, outvoted, otherwise := c.judge(ctx, mine)
		if outvoted {
			c.outvoted(number)
			return nil
		}
		if otherwise {
			c.o.Log.Error("states of coordinators differ, and no majority has the same one; please report it")
		}
		said = mine[len(mine)-1].Number
	}
}

// judge asks the other voters of this build.
func (c *Coordinator) judge(ctx context.Context, mine []state.Window) (number uint64, outvoted, otherwise bool) {
	servers, err := c.node.Servers()
	if err != nil {
		return 0, false, false
	}
	var voters []string
	for _, s := range servers {
		if s.Voter {
			voters = append(voters, s.Name)
		}
	}
	var others [][]state.Window
	for name, d := range c.describeAll(ctx, c.peers.members()) {
		if name == c.o.Name || d.Build != build() || !slices.Contains(voters, name) {
			continue
		}
		var theirs []state.Window
		for _, w := range d.Windows {
			theirs = append(theirs, state.Window{Number: w.Number, Sum: w.Sum})
		}
		others = append(others, theirs)
	}
	return state.Differs(mine, others, len(voters))
}

// outvoted ends this coordinator for good.
func (c *Coordinator) outvoted(number uint64) {
	first := number * state.WindowEntries
	why := fmt.Sprintf("between entries %d and %d the state of %s became another one than that of most others, so "+
		"memory or disk of this machine has changed it, or there is a fault in Groundswell: please report it",
		first, first+state.WindowEntries-1, c.o.Name)
	err := durable.WriteFile(c.o.outvotedFile(), []byte(why+"\n"), 0o600)
	c.endAtOnce(errors.Join(c.o.outvotedError(why), err))
}

func (o *Options) outvotedFile() string { return filepath.Join(o.Dir, "outvoted") }

func (o *Options) outvotedError(why string) error {
	return fmt.Errorf("%s. The other coordinators go on. Test the machine, then `dctl cluster remove %s`, empty %s "+
		"and join again with a token", why, o.Name, o.Dir)
}

// outvotedBefore refuses a start on a state that differs.
func (o *Options) outvotedBefore() error {
	why, err := os.ReadFile(o.outvotedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read why this coordinator ended: %w", err)
	}
	return o.outvotedError(strings.TrimSpace(string(why)))
}
