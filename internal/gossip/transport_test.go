package gossip

import (
	"bytes"
	"io"
	"log"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestSilentConnectionsAreFew: one address holds so many, and a member still
// joins; those that are sent away are free again.
func TestSilentConnectionsAreFew(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	r, err := Open(Options{Self: Member{ID: "a", Role: "coordinator"}, Bind: "127.0.0.1:0", Keys: key})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []net.Conn
	for range mostOfAddress + 50 {
		conn, err := net.Dial("tcp", r.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all = append(all, conn)
	}
	closed := 0
	for _, conn := range all[mostOfAddress:] {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
				closed++
			}
		}
	}
	if closed != 50 {
		t.Errorf("of 50 connections beyond the bound %d were closed", closed)
	}
	for _, conn := range all {
		_ = conn.Close()
	}
	other, err := Open(Options{Self: Member{ID: "b", Role: "agent"}, Bind: "127.0.0.1:0", Keys: key})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for end := time.Now().Add(20 * time.Second); other.Rejoin([]string{r.Addr()}) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody can join any more")
		}
	}
}

// TestShutdownTakesWhatComes: a connection that is accepted while the transport ends
// keeps nobody waiting.
func TestShutdownTakesWhatComes(t *testing.T) {
	for range 100 {
		c, err := listen("127.0.0.1", 0, log.New(io.Discard, "", 0))
		if err != nil {
			t.Fatal(err)
		}
		at := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.GetAutoBindPort()))
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for {
					conn, err := net.Dial("tcp", at)
					if err != nil {
						return
					}
					_ = conn.Close()
				}
			})
		}
		down := make(chan error, 1)
		go func() { down <- c.Shutdown() }()
		select {
		case err := <-down:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the transport does not end")
		}
		callers.Wait()
	}
}
