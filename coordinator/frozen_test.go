package coordinator

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// ice freezes the connections of a coordinator, as a process that is stopped has:
// they stay open, nothing is read from them and nothing written. Once thawed is
// closed those that waited meanwhile end.
type ice struct {
	on     atomic.Bool
	thawed chan struct{}
}

func (i *ice) listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	return iceListener{l, i}, err
}

func (i *ice) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return i.conn(c), nil
}

func (i *ice) conn(c net.Conn) net.Conn {
	return &iceConn{Conn: c, ice: i, closed: make(chan struct{})}
}

type iceListener struct {
	net.Listener
	ice *ice
}

func (l iceListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.ice.conn(c), nil
}

type iceConn struct {
	net.Conn
	ice    *ice
	once   sync.Once
	closed chan struct{}
}

func (c *iceConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.ice.on.Load() {
		select {
		case <-c.closed:
		case <-c.ice.thawed:
		}
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *iceConn) Write(b []byte) (int, error) {
	if c.ice.on.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *iceConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestACallThroughAFollowerOfAFrozenLeader is answered by the next leader, before a
// connection that does not answer counts as dead.
func TestACallThroughAFollowerOfAFrozenLeader(t *testing.T) {
	frozen := &ice{thawed: make(chan struct{})}
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true, Listen: frozen.listen, Dial: frozen.dial})
	_, admin := operator(t, first)
	var others []*node
	for _, name := range []string{"c2", "c3"} {
		out, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, start(t, Options{
			Name: name, Dir: t.TempDir(), Join: []string{first.addr.API},
			Token: func() (identity.Token, error) { return identity.ParseToken(out.Token) },
		}))
	}
	eventually(t, "three vote", func() bool {
		voters := 0
		for _, m := range status(t, admin).Coordinators {
			if m.Voter {
				voters++
			}
		}
		return voters == 3
	})
	through := others[0].as(t, filepath.Join(first.dir, operatorDir))
	freeze := func(ctx context.Context) error {
		_, err := through.SetFreeze(ctx, &controlv1.SetFreezeRequest{Mutation: &controlv1.Mutation{Reason: "drill"}})
		return err
	}
	if err := freeze(t.Context()); err != nil { // the follower has a connection to the leader
		t.Fatal(err)
	}
	frozen.on.Store(true)
	t.Cleanup(func() { // before it is stopped
		frozen.on.Store(false)
		close(frozen.thawed)
	})
	ctx, cancel := context.WithTimeout(t.Context(), tryBound-time.Second)
	defer cancel()
	if err := freeze(ctx); err != nil {
		t.Error(err)
	}
}
