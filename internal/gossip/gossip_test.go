package gossip

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"
)

// watcher records who is alive and signals each change.
type watcher struct {
	mu    sync.Mutex
	alive map[string]bool
	ping  chan struct{}
}

func (w *watcher) changed(m Member, alive bool) {
	w.mu.Lock()
	w.alive[m.ID] = alive
	w.mu.Unlock()
	select {
	case w.ping <- struct{}{}:
	default:
	}
}

func (w *watcher) until(t *testing.T, what string, ok func(map[string]bool) bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		done := ok(w.alive)
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.ping:
		case <-limit:
			t.Fatalf("waited for: %s; have %v", what, w.alive)
		}
	}
}

func open(t *testing.T, id string, key []byte, seeds ...string) (*Ring, *watcher) {
	t.Helper()
	w := &watcher{alive: map[string]bool{}, ping: make(chan struct{}, 1)}
	r, err := Open(Options{
		Self: Member{ID: id, Role: "agent", Agent: "127.0.0.1:7101"}, Bind: "127.0.0.1:0", Keys: key,
		Seeds: seeds, Changed: w.changed, Probe: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, w
}

func TestMembersComeAndGo(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	first, w := open(t, "m1", key)
	var others []*Ring
	for i := range 3 {
		r, _ := open(t, fmt.Sprint("m", i+2), key, first.Addr())
		others = append(others, r)
	}
	w.until(t, "four members", func(a map[string]bool) bool { return a["m1"] && a["m2"] && a["m3"] && a["m4"] })
	for _, m := range first.Members() {
		if m.Agent != "127.0.0.1:7101" || m.Addr == "" {
			t.Errorf("member %+v lost its meta", m)
		}
	}
	if err := others[0].Leave(); err != nil {
		t.Error(err)
	}
	w.until(t, "m2 left", func(a map[string]bool) bool { return !a["m2"] })
	if err := others[1].Close(); err != nil { // a crash: found by probes
		t.Error(err)
	}
	w.until(t, "m3 is found dead", func(a map[string]bool) bool { return !a["m3"] && a["m4"] })
	if err := others[1].Leave(); err != nil { // who ends at once may be about to stop in order
		t.Error(err)
	}
}

func TestRingIsEncrypted(t *testing.T) {
	if _, err := Open(Options{Self: Member{ID: "x"}, Bind: "127.0.0.1:0"}); err == nil {
		t.Error("a ring without a key was opened")
	}
	first, _ := open(t, "m1", bytes.Repeat([]byte{7}, 32))
	stranger, _ := open(t, "bad", bytes.Repeat([]byte{8}, 32))
	if n := stranger.Rejoin([]string{first.Addr()}); n != 0 {
		t.Error("a member with another key joined")
	}
	if len(first.Members()) != 1 {
		t.Errorf("members %v", first.Members())
	}
}

func TestBadAddress(t *testing.T) {
	for _, a := range []string{"", "x", "127.0.0.1:x", "127.0.0.1:99999999"} {
		if _, err := Open(Options{Self: Member{ID: "x"}, Bind: a, Keys: make([]byte, 32)}); err == nil {
			t.Errorf("address %q was accepted", a)
		}
	}
}
