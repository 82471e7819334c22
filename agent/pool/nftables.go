package pool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
)

// Port is a TCP port of this host that new connections from elsewhere are kept from:
// they are refused, so that a balancer tries another host at once. Connections that
// there are go on, and the host itself is let in, by loopback. It needs root and nft,
// and it is about this host's own network: a port that a container publishes is
// forwarded, and not kept.
//
// The rules lie in a table of our own, which nobody else writes. A reboot and whoever
// flushes the rules of the host empty it.
type Port struct{ Number int }

// rules make our table and its rule, whatever of them is there, in one transaction.
const rules = `add table inet groundswell
add set inet groundswell closed { type inet_service; }
add chain inet groundswell input { type filter hook input priority -10; policy accept; }
flush chain inet groundswell input
add rule inet groundswell input iifname != "lo" tcp dport @closed ct state new reject with tcp reset
`

// nftLimit bounds a call of nft, which asks the kernel alone.
const nftLimit = 10 * time.Second

// nft runs a script of rules, all of it or nothing.
func nft(ctx context.Context, script string) error {
	ctx, cancel := context.WithTimeout(ctx, nftLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(script), time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("this host has no nft; install the package nftables, or use another kind of pool")
	}
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, out.text())
	}
	return nil
}

// Close keeps new connections out. It is idempotent.
func (p Port) Close(ctx context.Context) error {
	return nft(ctx, fmt.Sprintf("%sadd element inet groundswell closed { %d }\n", rules, p.Number))
}

// Open lets them in again. It is idempotent.
func (p Port) Open(ctx context.Context) error {
	return nft(ctx, fmt.Sprintf("%sadd element inet groundswell closed { %d }\ndelete element inet groundswell closed { %d }\n",
		rules, p.Number, p.Number))
}

// Drained waits until no connection from elsewhere is left, and returns how many are
// left when ctx ends. It tells say how many there are.
func (p Port) Drained(ctx context.Context, say func(string)) (left int, err error) {
	for {
		if left, err = p.connections(); left == 0 || err != nil {
			return left, err
		}
		say(fmt.Sprintf("%d connections", left))
		if !backoff.Pause(ctx, drainLook) {
			return left, nil
		}
	}
}

// drainLook is how often connections are counted: reading them costs what there are.
const drainLook = 500 * time.Millisecond

// connections counts those that are established, from elsewhere.
func (p Port) connections() (n int, err error) {
	for _, path := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a host without IPv6
		}
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if p.counts(lines.Text()) {
				n++
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return 0, fmt.Errorf("count connections in %s: %w", path, err)
		}
	}
	return n, nil
}

// established is the kernel's number of that state of a connection.
const established = "01"

// counts reports whether a line of /proc/net/tcp is a connection of the port's.
func (p Port) counts(line string) bool {
	f := strings.Fields(line)
	if len(f) < 4 || f[3] != established {
		return false
	}
	_, port, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || int(n) != p.Number {
		return false
	}
	remote, _, _ := strings.Cut(f[2], ":")
	return !loopback(remote)
}

// loopback reports whether an address is of this host. The kernel writes it as words
// of 32 bits, each in the machine's order, which of a little-endian one is backwards.
func loopback(hex string) bool {
	var b []byte
	for i := 0; i+8 <= len(hex); i += 8 {
		word, err := strconv.ParseUint(hex[i:i+8], 16, 32)
		if err != nil {
			return false
		}
		b = append(b, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	addr, ok := netip.AddrFromSlice(b)
	return ok && addr.Unmap().IsLoopback()
}
