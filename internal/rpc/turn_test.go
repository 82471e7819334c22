package rpc

import (
	"net"
	"testing"
)

// TestWhoSaysNothingHoldsNobodyUp: there is one place, and a caller who shakes hands and
// says nothing does not have it.
func TestWhoSaysNothingHoldsNobodyUp(t *testing.T) {
	places := make(chan struct{}, 1)
	silent, far := net.Pipe()
	read := make(chan error, 1)
	go func() {
		turn := takeTurn(silent, places)
		_, err := turn.Read(make([]byte, 1))
		turn.end()
		read <- err
	}()
	other, end := net.Pipe()
	defer end.Close()
	for range 100 {
		takeTurn(other, places).end() // it would block for ever
	}
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	if len(places) != 0 {
		t.Error("a place is taken though nobody shakes hands")
	}
	turn := takeTurn(other, places)
	turn.end()
	go func() { _, _ = end.Write([]byte{2}) }()
	if _, err := turn.Read(make([]byte, 1)); err != nil || len(places) != 0 {
		t.Errorf("after the handshake: %v, %d places taken", err, len(places))
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
