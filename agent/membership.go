package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/groundswell/groundswell/internal/durable"
)

// membership is what enrolment gave the host beside its credential.
type membership struct {
	Host         string   `json:"host"`
	Cluster      string   `json:"cluster"`
	Seeds        []string `json:"seeds"`
	Coordinators []string `json:"coordinators"`
	Epoch        uint64   `json:"epoch,omitempty"` // highest of the cluster that this host has seen
}

// maxKnown bounds the remembered addresses of coordinators and seeds.
const maxKnown = 32

// loadMembership reads what saveMembership wrote, and the gossip key.
func loadMembership(dir string) (m membership, gossipKey []byte, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, nil, fmt.Errorf("read what the cluster told this host: %w", err)
	}
	if gossipKey, err = os.ReadFile(filepath.Join(dir, "gossip.key")); err != nil {
		return m, nil, fmt.Errorf("read gossip key: %w", err)
	}
	return m, gossipKey, nil
}

func saveMembership(dir string, m membership) error {
	m.Seeds, m.Coordinators = bounded(m.Seeds), bounded(m.Coordinators)
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("encode what the cluster told this host: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "cluster.json"), data, 0o600)
}

func bounded(list []string) []string {
	var out []string
	for _, s := range list {
		if s != "" && !slices.Contains(out, s) && len(out) < maxKnown {
			out = append(out, s)
		}
	}
	return out
}

// hostID is the host's id, kept for ever: in a file beside the identity, so
// that enrolling anew changes who vouches for the host, not which one it is.
// It is empty before the first enrolment.
func (o Options) hostID() (string, error) {
	data, err := os.ReadFile(o.path("host-id"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read host id: %w", err)
	}
	return string(data), nil
}
