package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// TestAdoptSplitAnywhere: killed after each step of taking a new identity into use,
// the next start finds one that is whole, and in the end the new one.
func TestAdoptSplitAnywhere(t *testing.T) {
	ca, err := identity.NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	cas, err := identity.ParseAuthorities(ca.PEM, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	// make writes an identity; half leaves its certificate out.
	write := func(o Options, dir, id string) {
		keyPEM, csr, err := identity.KeptKey(o.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := cas.Issue(csr, identity.Agent, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.writeIdentity(o.path(dir), &agentv1.EnrolResponse{
			HostId: id, CertificatePem: cert, CaPem: cas.PEM(), GossipKey: []byte("k"),
		}, keyPEM); err != nil {
			t.Fatal(err)
		}
	}
	move := func(o Options, from, to string) {
		if err := os.Rename(o.path(from), o.path(to)); err != nil {
			t.Fatal(err)
		}
	}
	for what, x := range map[string]struct {
		killed func(Options)
		want   string
	}{
		"nothing was split":              {func(o Options) { os.RemoveAll(o.path(splitDir)) }, "old"},
		"before its certificate":         {func(o Options) { os.Remove(o.path(splitDir, "tls.crt")) }, "old"},
		"before the first step":          {func(Options) {}, "new"},
		"the former one is aside":        {func(o Options) { move(o, "identity", "identity.before") }, "new"},
		"one of another time lies there": {func(o Options) { write(o, "identity.before", "older") }, "new"},
		"it is in place": {func(o Options) {
			move(o, "identity", "identity.before")
			move(o, splitDir, "identity")
		}, "new"},
	} {
		o := Options{Root: t.TempDir()}
		write(o, "identity", "old")
		write(o, splitDir, "new")
		x.killed(o)
		for range 2 { // once more is no harm
			if err := o.adoptSplit(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		cred, err := identity.Load(o.path("identity"))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		m, _, err := loadMembership(o.path("identity"))
		if peer, _ := cred.Peer(); err != nil || peer.ID != x.want || m.Host != x.want {
			t.Errorf("%s: the certificate says %s, the rest %s, %v; want %s", what, peer.ID, m.Host, err, x.want)
		}
		if id, _ := o.hostID(); x.want == "new" && what != "it is in place" && id != "new" {
			t.Errorf("%s: the host's id is %q", what, id)
		}
		if _, err := os.Stat(o.path(splitDir, "tls.crt")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the new one lies where it was made", what)
		}
	}
}

// TestInstancesAreRemembered: what a coordinator may have heard is on disk before
// it is said, until a later process is welcomed.
func TestInstancesAreRemembered(t *testing.T) {
	dir := t.TempDir()
	var said []string
	process := func(welcomed bool) []string {
		t.Helper()
		i, err := openInstances(dir)
		if err != nil {
			t.Fatal(err)
		}
		id, former, err := i.say()
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, id)
		if again, _, _ := i.say(); again != id {
			t.Error("one process says two things")
		}
		if welcomed {
			if err := i.welcomed(); err != nil {
				t.Fatal(err)
			}
		}
		return former
	}
	if former := process(true); len(former) != 0 {
		t.Errorf("the first remembers %v", former)
	}
	for n := range mostSince + 20 {
		former := process(false)
		if former[0] != said[0] || len(former) > 1+mostSince || n > 0 && former[len(former)-1] != said[len(said)-2] {
			t.Fatalf("process %d, never welcomed, remembers %d, first %s, last %s", n, len(former), former[0],
				former[len(former)-1])
		}
	}
	process(true)
	if former := process(false); len(former) != 1 || former[0] != said[len(said)-2] {
		t.Errorf("after a welcome %v is remembered", former)
	}
	if err := os.WriteFile(filepath.Join(dir, "instances.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openInstances(dir); err == nil {
		t.Error("a damaged file is read")
	}
}
