package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_STATE_DIR"); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

type loopback struct{ net.Listener }

func (loopback) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// lone opens a cluster of one in the folder, and waits until it leads.
func lone(dir string, s *state.Store) (*consensus.Node, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n, err := consensus.Open(consensus.Options{
		Dir: dir, Name: "a", Advertise: l.Addr().String(), Layer: loopback{l}, FSM: s, Heartbeat: 50 * time.Millisecond,
		CheckSnapshot: func(r io.Reader) error { return state.CheckSnapshot(r, deploy.RulesKnown) },
		CheckEntry:    func(b []byte) error { return state.CheckEntry(b, deploy.RulesKnown) },
	})
	if err != nil {
		return nil, err
	}
	if err := n.Bootstrap(); err != nil && !errors.Is(err, consensus.ErrHasState) {
		return nil, err
	}
	select {
	case <-n.Leadership():
	case <-time.After(20 * time.Second):
		return nil, errors.New("nobody leads")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return n, n.Barrier(ctx)
}

// writeForEver enrols host after host, tells of each once it is acknowledged, and
// takes a snapshot now and then, until it is killed.
func writeForEver(dir string) error {
	s := state.New(deploy.RulesKnown)
	n, err := lone(dir, s)
	if err != nil {
		return err
	}
	next, rules := 0, 0
	s.View(func(st *deploy.State) { next, rules = len(st.Hosts), st.Rules })
	for ; rules < deploy.RulesKnown; rules++ { // by which snapshots are written
		b, err := state.Encode(state.Entry{Entry: deploy.Entry{
			Rules: rules, Events: []deploy.Event{deploy.RulesRaised{Level: rules + 1}},
		}})
		if err != nil {
			return err
		}
		if _, err := n.Propose(context.Background(), b); err != nil {
			return err
		}
	}
	for ; ; next++ {
		host := fmt.Sprint("h", next)
		b, err := state.Encode(state.Entry{Entry: deploy.Entry{Rules: 1, At: deploy.Time(next), Events: []deploy.Event{
			deploy.HostEnrolled{Host: host, Name: host, Zone: "z"},
		}}})
		if err != nil {
			return err
		}
		out, err := n.Propose(context.Background(), b)
		if err != nil {
			return err
		}
		if err := out.(state.Applied).Err(); err != nil {
			return err
		}
		fmt.Println(next)
		if next%7 == 6 {
			if err := n.Snapshot(); err != nil {
				return err
			}
		}
	}
}

// TestKilledWhileItWrites: whatever was acknowledged before a kill is there after
// it, in order and once, and nothing else but what was about to be.
func TestKilledWhileItWrites(t *testing.T) {
	dir := t.TempDir()
	told := -1 // the last host that was acknowledged
	for round := range 12 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "TEST_STATE_DIR="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines, until := bufio.NewScanner(out), 1+rand.IntN(20)
		seen := 0
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil || n < told+1 || n > told+2 { // one may have counted that nobody was told of
				t.Fatalf("round %d: %q after %d: %v", round, lines.Text(), told, err)
			}
			told = n
			if seen++; seen == until {
				_ = cmd.Process.Kill() // what was written to the pipe until then is still read
			}
		}
		if err := cmd.Wait(); seen < until {
			t.Fatalf("round %d: it ended by itself: %v", round, err)
		}
	}
	s := state.New(deploy.RulesKnown)
	n, err := lone(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s.View(func(st *deploy.State) {
		if got := len(st.Hosts); got != told+1 && got != told+2 {
			t.Errorf("%d hosts are there, %d were acknowledged", got, told+1)
		}
		for i := range told + 1 {
			if st.Hosts[fmt.Sprint("h", i)] == nil {
				t.Errorf("h%d was acknowledged and is gone", i)
			}
		}
	})
}
