package consensus

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// written makes a folder of a node that has stopped, with a snapshot and entries
// behind it, and returns what its FSM had.
func written(t *testing.T, dir string) string {
	t.Helper()
	n, w := openNode(t, dir, "a", "127.0.0.1:0")
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, n)
	for i := range 40 {
		propose(t, n, fmt.Sprintf("word-%d-%s", i, strings.Repeat("x", 300)))
		if i == 20 {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := w.String()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// serves opens the folder and returns what its FSM has once it leads.
func serves(t *testing.T, dir string) (string, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := &words{}
	failed := make(chan error, 1)
	n, err := Open(Options{
		Dir: dir, Name: "a", Advertise: l.Addr().String(), Layer: plain{l}, FSM: w, Heartbeat: 20 * time.Millisecond,
		Failed:        func(err error) { failed <- err },
		CheckSnapshot: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
	})
	if err != nil {
		return "", err
	}
	for limit := time.After(20 * time.Second); ; {
		select {
		case err := <-failed:
			return "", err
		case <-limit:
			return "", errors.Join(errors.New("it never leads"), n.Close())
		case yes := <-n.Leadership():
			if !yes {
				continue
			}
			err := n.Barrier(t.Context())
			return w.String(), errors.Join(err, n.Close())
		}
	}
}

// TestChangedWords changes one word of what is on disk, anywhere: it is never
// served as truth. Either the node does not start and names the file, or what was
// changed is nothing that it reads.
func TestChangedWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := written(t, filepath.Join(dir, "raft"))
	if got, err := serves(t, filepath.Join(dir, "raft")); err != nil || got != want {
		t.Fatalf("unchanged: %q, %v", got, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("a snapshot is %v, %v", files, err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, file := range append(files, filepath.Join(dir, "raft", "raft.db")) {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		const tries = 60
		for range tries {
			copied := filepath.Join(t.TempDir(), "raft")
			if err := os.CopyFS(copied, os.DirFS(filepath.Join(dir, "raft"))); err != nil {
				t.Fatal(err)
			}
			changed := slices.Clone(data)
			at := r.IntN(len(data)/4) * 4
			changed[at+r.IntN(4)] ^= 1 << r.IntN(8)
			rel, err := filepath.Rel(filepath.Join(dir, "raft"), file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(copied, rel), changed, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := serves(t, copied)
			var damaged *Damaged
			switch {
			case errors.As(err, &damaged):
				refused++
				if !strings.HasPrefix(file, filepath.Join(dir, "raft", strings.TrimPrefix(damaged.File, copied))) {
					t.Errorf("%s changed at %d: %v", name, at, err)
				}
			case err != nil:
				t.Errorf("%s changed at %d: not called damage: %v", name, at, err)
			case got != want:
				t.Errorf("%s changed at %d: it serves %d bytes of %d", name, at, len(got), len(want))
			}
		}
		t.Logf("%s: refused %d of %d", name, refused, tries)
		if name != "raft.db" && refused == 0 || refused == 0 {
			t.Errorf("no change of %s was noticed", name)
		}
	}
}

// TestASnapshotThatWasBeingRemoved: a node that was killed while raft removed an old
// snapshot starts. One that lacks a file and that nothing replaces is damage.
func TestASnapshotThatWasBeingRemoved(t *testing.T) {
	for _, file := range []string{"meta.json", "state.bin"} {
		dir := t.TempDir()
		n, _ := openNode(t, dir, "a", "127.0.0.1:0")
		if err := n.Bootstrap(); err != nil {
			t.Fatal(err)
		}
		leads(t, n)
		old := filepath.Join(t.TempDir(), "old")
		for i := range 3 {
			propose(t, n, fmt.Sprint("word", i))
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				continue
			}
			list, err := filepath.Glob(filepath.Join(dir, "snapshots", "*-*-*"))
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			old = filepath.Join(old, filepath.Base(list[0]))
			if err := os.CopyFS(old, os.DirFS(list[0])); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		back := filepath.Join(dir, "snapshots", filepath.Base(old)) // as raft would have left it
		if err := errors.Join(os.CopyFS(back, os.DirFS(old)), os.Remove(filepath.Join(back, file))); err != nil {
			t.Fatal(err)
		}
		if got, err := serves(t, dir); err != nil || !strings.Contains(got, "word2") {
			t.Errorf("without %s of a snapshot that was being removed: %q, %v", file, got, err)
		}
		if _, err := os.Stat(back); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the rest is there: %v", err)
		}
		kept, err := filepath.Glob(filepath.Join(dir, "snapshots", "*-*-*"))
		if err != nil || len(kept) != snapshots {
			t.Fatal(kept, err)
		}
		for _, one := range kept {
			broken := t.TempDir()
			if err := errors.Join(os.CopyFS(broken, os.DirFS(dir)),
				os.Remove(filepath.Join(broken, "snapshots", filepath.Base(one), file))); err != nil {
				t.Fatal(err)
			}
			var damaged *Damaged
			if _, err := serves(t, broken); !errors.As(err, &damaged) {
				t.Errorf("without %s of one of the two newest snapshots: %v", file, err)
			}
		}
	}
}
