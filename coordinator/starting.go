package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/internal/durable"
)

// starting is what a coordinator is about to become. It lies in DIR/starting
// from before its first key until it is a voter with its addresses in the log,
// so that whatever ends it in between, the next start goes on: with the flags
// or without them.
type starting struct {
	Bootstrap bool     `json:"bootstrap,omitempty"`
	Join      []string `json:"join,omitempty"`
	// Interrupted names the command that has not done its work yet; Epoch and
	// Reason are what it leaves to the next start.
	Interrupted string `json:"interrupted,omitempty"`
	Epoch       uint64 `json:"epoch,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

func (o *Options) startingFile() string { return filepath.Join(o.Dir, "starting") }

// resume lays what was begun over the options, or notes what begins now.
func (o *Options) resume() error {
	var s starting
	data, err := os.ReadFile(o.startingFile())
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("read %s: %w; remove it if this coordinator is a member, else empty %s",
				o.startingFile(), err, o.Dir)
		}
		return o.goOn(s)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read what was begun: %w", err)
	}
	_, err = os.Stat(filepath.Join(o.Dir, identityDir, "tls.crt"))
	switch known := err == nil; {
	case known && !consensus.HasState(filepath.Join(o.Dir, "raft")):
		return fmt.Errorf("%s holds the identity of a member and no log: without it, it could vote twice. "+
			"`dctl cluster remove %s`, empty the folder, and join again with a token", o.Dir, o.Name)
	case known:
		o.Bootstrap, o.Join = false, nil // it is a member
		return nil
	case !o.Bootstrap && len(o.Join) == 0:
		return nil // loadKeys says what is missing
	}
	return o.note(starting{Bootstrap: o.Bootstrap, Join: o.Join})
}

// goOn takes up what was begun. Another address to join at may be said.
func (o *Options) goOn(s starting) error {
	switch {
	case s.Interrupted != "":
		return fmt.Errorf("`%s` on %s was interrupted; run it again", s.Interrupted, o.Dir)
	case s.Epoch > 0:
		o.Bootstrap, o.Join, o.epoch, o.reason = false, nil, s.Epoch, s.Reason
		return nil
	case s.Bootstrap:
		o.Log.Info("going on with the bootstrap that was interrupted", "dir", o.Dir)
		o.Bootstrap, o.Join = true, nil
		return nil
	case o.Bootstrap:
		return fmt.Errorf("%s is about to join the cluster at %v; empty it to bootstrap another one", o.Dir, s.Join)
	case len(o.Join) == 0:
		o.Join = s.Join
	}
	o.Log.Info("going on with joining, which was interrupted", "at", o.Join)
	return o.note(starting{Join: o.Join})
}

func (o *Options) note(s starting) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode what begins: %w", err)
	}
	if err := durable.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(o.startingFile(), data, 0o600)
}

// started says that what was begun is done.
func (o *Options) started() error { return durable.Remove(o.startingFile()) }
