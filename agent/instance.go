package agent

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/groundswell/groundswell/internal/durable"
)

// instances tell this process of the agent from others that have the same key: of
// one before it on this machine, which it remembers, and of one on a machine whose
// disk was copied. Methods may be called concurrently.
type instances struct {
	path string
	id   string // of this process

	mu    sync.Mutex
	known remembered
	noted bool // id is on disk
}

// remembered is what lies on disk.
type remembered struct {
	Welcomed string   `json:"welcomed,omitempty"` // the last that a coordinator has welcomed
	Since    []string `json:"since,omitempty"`    // those that may have been said after it, the newest last
}

// mostSince bounds the list: so many processes one after the other that said hello
// and were never welcomed.
const mostSince = 64

// openInstances reads what former processes left in an identity's folder.
func openInstances(dir string) (*instances, error) {
	i := &instances{path: filepath.Join(dir, "instances.json"), id: rand.Text()}
	data, err := os.ReadFile(i.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return i, nil
	case err == nil:
		err = json.Unmarshal(data, &i.known)
	}
	if err != nil {
		return nil, fmt.Errorf("read which processes of the agent were before this one: %w; if it cannot be repaired, "+
			"remove %s: the coordinators then take a while to believe that no other machine has this "+
			"identity", err, i.path)
	}
	return i, nil
}

// say returns what is to be said of this process. It is on disk before: whatever
// answer is lost, the next process remembers what the coordinators may know.
func (i *instances) say() (id string, former []string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	former = slices.Clone(i.known.Since)
	if i.known.Welcomed != "" {
		former = append([]string{i.known.Welcomed}, former...)
	}
	if i.noted {
		return i.id, former, nil
	}
	next := i.known
	next.Since = append(slices.Clone(next.Since), i.id)
	next.Since = next.Since[max(0, len(next.Since)-mostSince):]
	if err := i.save(next); err != nil {
		return "", nil, err
	}
	i.known, i.noted = next, true
	return i.id, former, nil
}

// welcomed forgets all others: the coordinators know this process.
func (i *instances) welcomed() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := remembered{Welcomed: i.id}
	if i.known.Welcomed == i.id {
		return nil
	}
	if err := i.save(next); err != nil {
		return err
	}
	i.known = next
	return nil
}

func (i *instances) save(r remembered) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = durable.WriteFile(i.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember this process of the agent: %w", err)
	}
	return nil
}
