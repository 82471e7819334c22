package rpc

import (
	"net"
	"runtime"
	"sync"
	"testing"
)

// TestWhoSaysNothingHoldsNobodyUp: there is one place, and a caller who shakes hands and
// says nothing does not have it.
func TestWhoSaysNothingHoldsNobodyUp(t *testing.T) {
	all := &line{places: make(chan struct{}, 1)}
	silent, far := net.Pipe()
	read := make(chan error, 1)
	go func() {
		shaking := takePlace(silent, all)
		_, err := shaking.Read(make([]byte, 1))
		shaking.end()
		read <- err
	}()
	other, end := net.Pipe()
	defer end.Close()
	for range 100 {
		takePlace(other, all).end() // it would block for ever
	}
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	if len(all.places) != 0 {
		t.Error("a place is taken though nobody shakes hands")
	}
	shaking := takePlace(other, all)
	shaking.end()
	go func() { _, _ = end.Write([]byte{2}) }()
	if _, err := shaking.Read(make([]byte, 1)); err != nil || len(all.places) != 0 {
		t.Errorf("after the handshake: %v, %d places taken", err, len(all.places))
	}
}

func TestRoomInFiles(t *testing.T) {
	for files, want := range map[int]Room{
		1024: {16, 112}, 20_000: {2388, 16_716}, 65_536: {6144, 58_496},
	} {
		if got := RoomIn(files); got != want {
			t.Errorf("%d files: %+v, want %+v", files, got, want)
		}
	}
}

// TestALongLineIsSentAway: and a line that was long lets others in again.
func TestALongLineIsSentAway(t *testing.T) {
	all := &line{places: make(chan struct{}, 1)}
	one, end := net.Pipe()
	defer end.Close()
	first := takePlace(one, all)
	var line sync.WaitGroup
	for range longestLine {
		line.Go(func() { takePlace(one, all).end() })
	}
	for !all.full() { // each of them joins the line before it waits
		runtime.Gosched()
	}
	first.end()
	line.Wait()
	if all.full() || all.waiting.Load() != 0 {
		t.Errorf("%d stand in line after all had their turn", all.waiting.Load())
	}
}

// TestEachPortHasItsLine: for the places that all share.
func TestEachPortHasItsLine(t *testing.T) {
	d := newDoors(nil, newMeters(nil))
	agents, people := d.counting(nil).(counting).line, d.counting(nil).(counting).line
	agents.waiting.Store(longestLine)
	if !agents.full() || people.full() || agents.places != people.places {
		t.Error("a fleet that comes back keeps coordinators from the other port, or has cores of its own")
	}
}
