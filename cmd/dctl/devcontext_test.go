package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// devFolder is what a fleet leaves on the disk that its context needs.
func devFolder(t *testing.T) Context {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "c1", "operator")
	must(t, os.MkdirAll(dir, 0o700))
	return Context{Coordinators: []string{"127.0.0.1:1"}, Credentials: dir}
}

// Each fleet has a context of its own, takes nobody's place, and takes back its
// own alone; that of a fleet which was killed goes with the next start.
func TestDevContexts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.yaml")
	read := func() Contexts {
		t.Helper()
		all, err := ReadContexts(path)
		must(t, err)
		return all
	}
	one, two := devFolder(t), devFolder(t)
	first, err := claimDevContext(path, one)
	must(t, err)
	second, err := claimDevContext(path, two)
	must(t, err)
	all := read()
	if first.name != "dev" || second.name != "dev-2" || all.Current != "dev" ||
		all.Contexts["dev"].Credentials != one.Credentials || all.Contexts["dev-2"].Credentials != two.Credentials {
		t.Errorf("%s, %s: %+v", first.name, second.name, all)
	}
	must(t, first.release())
	all = read()
	if len(all.Contexts) != 1 || all.Current != "" || all.Contexts["dev-2"].Credentials != two.Credentials {
		t.Errorf("after the first has ended: %+v", all)
	}
	must(t, second.alive.Unlock()) // killed: nothing is taken back
	third, err := claimDevContext(path, one)
	must(t, err)
	if all := read(); third.name != "dev" || len(all.Contexts) != 1 || all.Current != "dev" {
		t.Errorf("after the second was killed: %s, %+v", third.name, all)
	}
	must(t, third.alive.Unlock()) // killed, and the folder is used again
	if third, err = claimDevContext(path, one); err != nil || third.name != "dev" || len(read().Contexts) != 1 {
		t.Errorf("in the same folder: %+v %v", third, err)
	}
	must(t, second.release()) // late: it owns nothing any more
	if all := read(); len(all.Contexts) != 1 {
		t.Errorf("took another's context: %+v", all)
	}
}

// A context that a person made stays, whatever it is called, and stays current.
func TestDevContextsOfPeople(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.yaml")
	must(t, WriteContext(path, "dev", devFolder(t), true))
	claim, err := claimDevContext(path, devFolder(t))
	must(t, err)
	all, err := ReadContexts(path)
	must(t, err)
	if claim.name != "dev-2" || all.Current != "dev" {
		t.Errorf("%s, %+v", claim.name, all)
	}
	must(t, claim.release())
	if all, err = ReadContexts(path); err != nil || all.Current != "dev" || len(all.Contexts) != 1 {
		t.Errorf("%v %+v", err, all)
	}
}

// Contexts written at once by several programs are all there.
func TestContextsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.yaml")
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	failed := make(chan error)
	for _, name := range names {
		go func() { failed <- WriteContext(path, name, Context{Credentials: name}, false) }()
	}
	for range names {
		must(t, <-failed)
	}
	all, err := ReadContexts(path)
	must(t, err)
	for _, name := range names {
		if all.Contexts[name].Credentials != name {
			t.Errorf("%s is lost of %v", name, slices.Sorted(slices.Values(names)))
		}
	}
}
