package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"github.com/groundswell/groundswell/internal/devfleet"
	"github.com/groundswell/groundswell/internal/identity"
)

// devContext is the name of the context of a `dctl dev`; a second fleet beside
// it takes dev-2, and so on.
const devContext = "dev"

// devClaim is a fleet's own context in the contexts file of its owner. The lock
// on a file in the fleet's folder says that the owner lives.
type devClaim struct {
	path, name string
	context    Context
	alive      *flock.Flock
}

// devAlive is the lock of the fleet with these credentials, in DIR/c1/operator.
func devAlive(credentials string) *flock.Flock {
	return flock.New(filepath.Join(filepath.Dir(filepath.Dir(credentials)), "alive"))
}

// claimDevContext adds a context of the fleet's own to the file. Contexts of
// fleets that are gone are cleared away. It becomes the current one only where
// none is: another fleet, or production, keeps what is typed without --context.
func claimDevContext(path string, fleet Context) (*devClaim, error) {
	d := &devClaim{path: path, context: fleet, alive: devAlive(fleet.Credentials)}
	if err := d.alive.Lock(); err != nil {
		return nil, fmt.Errorf("mark the fleet as alive: %w", err)
	}
	return d, changeContexts(path, func(all *Contexts) bool {
		all.clearDead(fleet.Credentials)
		d.name = devContext
		for n := 2; ; n++ {
			if _, taken := all.Contexts[d.name]; !taken {
				break
			}
			d.name = fmt.Sprintf("%s-%d", devContext, n)
		}
		all.Contexts[d.name] = d.context
		if all.Current == "" {
			all.Current = d.name
		}
		return true
	})
}

// clearDead drops contexts of fleets whose owner is gone, also of one that had
// the folder which is ours now.
func (c *Contexts) clearDead(ours string) {
	for name, x := range c.Contexts {
		if x.Credentials == ours ||
			(name == devContext || strings.HasPrefix(name, devContext+"-")) && devGone(x.Credentials) {
			c.drop(name)
		}
	}
}

// devGone reports whether the fleet with these credentials has ended. A folder
// that is no fleet's, because somebody named a context so, has not.
func devGone(credentials string) bool {
	lock := devAlive(credentials)
	if _, err := os.Stat(lock.Path()); err != nil {
		_, there := os.Stat(credentials)
		return errors.Is(there, fs.ErrNotExist)
	}
	free, err := lock.TryLock()
	if free {
		_ = lock.Unlock() // nobody else holds it
	}
	return free && err == nil
}

// drop takes a context out; if it was the current one, none is current.
func (c *Contexts) drop(name string) {
	delete(c.Contexts, name)
	if c.Current == name {
		c.Current = ""
	}
}

// release takes the context back, if it still is this fleet's.
func (d *devClaim) release() error {
	defer func() { _ = d.alive.Unlock() }() // the end of the process does too
	return changeContexts(d.path, func(all *Contexts) bool {
		if all.Contexts[d.name].Credentials != d.context.Credentials {
			return false
		}
		all.drop(d.name)
		return true
	})
}

// writeDevEnv writes a file that a shell sources so that every command finds
// this fleet, its store and the programs. It holds the store's secret: 0600.
func writeDevEnv(fleet *devfleet.Fleet, bin, contexts string) (string, error) {
	lines := []string{
		"export PATH=" + quote(bin) + `:"$PATH"`,
		"export DCTL_CONFIG=" + quote(contexts),
		"export DCTL_CONTEXT=" + devContext,
	}
	for _, v := range fleet.StoreEnv() {
		name, value, _ := strings.Cut(v, "=")
		lines = append(lines, "export "+name+"="+quote(value))
	}
	path := filepath.Join(fleet.Dir(), "env")
	return path, identity.WriteSecret(path, []byte(strings.Join(lines, "\n")+"\n"))
}

// quote makes one word of a text for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
