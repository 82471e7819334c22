package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/tap"

	"github.com/groundswell/groundswell/internal/identity"
)

// TestAddresses: one machine has a whole network of IPv6.
func TestAddresses(t *testing.T) {
	for at, want := range map[string]string{
		"10.0.0.1:5": "address 10.0.0.1", "[::ffff:10.0.0.1]:5": "address 10.0.0.1",
		"[2001:db8:1:2:3::4]:5": "address 2001:db8:1:2::/64", "[fe80::1%eth0]:5": "address fe80::/64",
	} {
		if got := address(named(at)); got != want {
			t.Errorf("%s is %q, want %q", at, got, want)
		}
	}
}

type named string

func (named) Network() string  { return "tcp" }
func (n named) String() string { return string(n) }

// TestAConnectionIsCountedUntilItIsClosed: however it ends, also before HTTP/2
// has begun, which gRPC ends in another way.
func TestAConnectionIsCountedUntilItIsClosed(t *testing.T) {
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, identity.Coordinator, "c1")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := identity.NewCredential(cert, key, ca.PEM)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerOptions{Credential: cred, Anonymous: true})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} //nolint:gosec // of a stranger
	for i := range 60 {
		conn, err := tls.Dial("tcp", l.Addr().String(), conf)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		case 1:
			_ = conn.NetConn().(*net.TCPConn).SetLinger(0) // reset
		}
		_ = conn.Close()
	}
	for end := time.Now().Add(20 * time.Second); s.doors.shake.total()+s.doors.conns.total()+s.doors.most.total() > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d handshakes, %d connections, %d of all are counted when all are closed", s.doors.shake.total(),
				s.doors.conns.total(), s.doors.most.total())
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestACallIsOpenUntilItsContextEnds, and who owes bytes makes none.
func TestACallIsOpenUntilItsContextEnds(t *testing.T) {
	var told []string
	m := newMeters(func(caller, _, why string) { told = append(told, caller+": "+why) })
	ctx, cancel := context.WithCancel(t.Context())
	for range allowances[""].open {
		if _, err := m.tap(ctx, &tap.Info{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.tap(ctx, &tap.Info{}); Kind(err) != KindTooMany {
		t.Errorf("one more: %v", err)
	}
	cancel()
	for end := time.Now().Add(20 * time.Second); m.open.total() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d calls stay open", m.open.total())
		}
	}
	m.bytes[""].Charge("address unknown", allowances[""].bytes.Burst)
	m.bytes[""].Charge("address unknown", 1<<20)
	if _, err := m.tap(t.Context(), &tap.Info{}); Kind(err) != KindTooMany {
		t.Errorf("who owes a mebibyte: %v", err)
	}
	if len(told) != 2 || told[1] != "address unknown: too many bytes" {
		t.Errorf("told %q", told)
	}
}

// TestTwoThousandComeBackAtOnce: behind one address, in one moment, twice; and
// as many newcomers.
func TestTwoThousandComeBackAtOnce(t *testing.T) {
	const hosts = 2000
	d := newDoors(nil, newMeters(nil))
	for range 2 {
		for range hosts {
			if !d.knocks.Allow("address 10.0.0.1", 1) || !d.shake.enter("address 10.0.0.1", mostShaking) {
				t.Fatal("a host that comes back meets a limit of handshakes")
			}
		}
		for range hosts {
			d.shake.leave("address 10.0.0.1")
		}
	}
	for range hosts {
		for _, bytes := range []int{0, 1 << 10} { // the CA, then the request
			if d.m.bytes[""].Owes("address 10.0.0.1") || !d.m.calls[""].Allow("address 10.0.0.1", 1) {
				t.Fatal("a newcomer meets a limit of calls")
			}
			d.m.bytes[""].Charge("address 10.0.0.1", bytes)
		}
	}
	if hosts > allowances[""].conns || hosts > RoomIn(20_000).Strangers {
		t.Error("they cannot all be connected")
	}
}
