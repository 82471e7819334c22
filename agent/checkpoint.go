package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/internal/durable"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// checkpoint is what a target must still know after a restart beside its journal:
// whatever of an assignment hooks, probes and reports need. The journal alone
// decides what is done next; losing a checkpoint loses names and reasons, never a
// step.
type checkpoint struct {
	Generation uint64
	App        string            `json:",omitempty"` // as people call it, where the target has another name
	Group      string            `json:",omitempty"`
	Deployment string            `json:",omitempty"`
	Artifacts  string            `json:",omitempty"`
	RunAs      []string          `json:",omitempty"` // users of its scripts
	Probes     []gate            `json:",omitempty"`
	Traffic    *traffic          `json:",omitempty"`
	Outages    []outage          `json:",omitempty"`
	Drained    *drained          `json:",omitempty"` // replaced, never changed
	Keep       []string          `json:",omitempty"` // ids
	Names      map[string]string `json:",omitempty"` // of revisions, by id
	Started    time.Time         // the generation, wall
	Limit      time.Duration     `json:",omitempty"`
	Failure    *failure          `json:",omitempty"` // the first one of the generation
	Cramped    bool              `json:",omitempty"` // a step of the generation failed on a full disk
	Staging    *staging          `json:",omitempty"` // the last one, if it failed
	Tasted     string            `json:",omitempty"` // the last key of staging whose tastes passed
	Specs      map[string]string `json:",omitempty"` // stated names of appspecs, by id
	Episodes   []episode         `json:",omitempty"` // newest last
	Edits      release.Edits     `json:",omitzero"`  // of installed files, as compared last
	Removed    bool              `json:",omitempty"` // the host does not belong to the application any more
}

// staging is how staging ahead of a permit failed.
type staging struct {
	Revision string // id
	Key      string // under which it was asked for
	Failure  *failure
}

// episode says which deployment a generation belonged to, for logs.
type episode struct {
	Generation uint64
	Deployment string
}

// maxEpisodes bounds the memory of deployments: far more than keep logs.
const maxEpisodes = 64

// revisionID is a digest as the journal and the release folders name it.
func revisionID(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// digestOf is the inverse of revisionID.
func digestOf(id string) string {
	if id == "" {
		return ""
	}
	return string(artifacts.Digest("sha256:" + id))
}

// begin takes the checkpoint of a new generation.
func (b *checkpoint) begin(a *agentv1.Assignment, now time.Time) {
	b.Generation, b.Deployment, b.Started = a.Generation, a.Deployment, now
	b.Limit, b.Failure, b.Cramped = time.Duration(a.TaskLimitNs), nil, false
	b.Staging = nil // what fails from now on is newer
	b.learn(a)
	b.remember()
}

// deploymentOf is the deployment of a generation: that of a step which an
// older one began is not the newest.
func (b *checkpoint) deploymentOf(generation uint64) string {
	for _, e := range b.Episodes {
		if e.Generation == generation {
			return e.Deployment
		}
	}
	return b.Deployment
}

// remember notes to which deployment the newest generation belongs.
func (b *checkpoint) remember() {
	b.Episodes = append(slices.Clone(b.Episodes), episode{b.Generation, b.Deployment})
	b.Episodes = b.Episodes[max(0, len(b.Episodes)-maxEpisodes):]
}

// learn takes what does not depend on a generation.
func (b *checkpoint) learn(a *agentv1.Assignment) {
	b.Group, b.Artifacts, b.Probes, b.Removed = a.Group, a.Artifacts, gates(a.Probes), false
	b.RunAs = a.RunAs
	b.Traffic = trafficOf(a.Traffic)
	b.Keep = nil
	for _, d := range a.Keep {
		b.Keep = append(b.Keep, revisionID(d))
	}
	names := map[string]string{} // its own: probes read the former checkpoint meanwhile
	maps.Copy(names, b.Names)
	b.Names = names
	for _, r := range []*agentv1.Revision{a.Goal, a.Stage} {
		if r != nil && r.Name != "" {
			b.Names[revisionID(r.Digest)] = r.Name
		}
	}
}

// name is what people call a revision.
func (b *checkpoint) name(id string) string {
	if n := b.Names[id]; n != "" || id == "" {
		return n
	}
	return digestOf(id)
}

// checkpointFile keeps one target's checkpoint on disk.
type checkpointFile struct {
	path string
	last []byte
}

// load returns the checkpoint, empty for a target without one.
func (f *checkpointFile) load() (checkpoint, error) {
	var b checkpoint
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return b, fmt.Errorf("read checkpoint of a target from %s: %w", f.path, err)
	}
	f.last = data
	return b, nil
}

// save is durable on return; an unchanged checkpoint costs nothing.
func (f *checkpointFile) save(b checkpoint) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode checkpoint of a target: %w", err)
	}
	if bytes.Equal(data, f.last) {
		return nil
	}
	if err := durable.WriteFile(f.path, data, 0o600); err != nil {
		return fmt.Errorf("save checkpoint of a target: %w", err)
	}
	f.last = data
	return nil
}
