package rpc

import (
	"fmt"
	"math"
	"syscall"
)

// Room is how many connections a port may hold.
type Room struct {
	Strangers int // without a certificate, of all addresses
	Known     int // with one; strangers cannot take their places
}

// FewestFiles is how many files a server must be allowed to open.
const FewestFiles = 1024

// Files of a process that are no connections of callers: state, logs, raft (256), gossip (512).
const ownFiles = 896

// OpenFiles returns how many files this process may open.
func OpenFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("ask how many files may be opened: %w", err)
	}
	return int(min(l.Cur, math.MaxInt32)), nil
}

// RoomIn parts files among callers: an eighth is for strangers, who have a call or two
// and go. 20,000 files hold 16,716 sessions, half of a fleet of 30,000 whose third
// coordinator is gone.
func RoomIn(files int) Room {
	n := max(64, files-ownFiles)
	strangers := min(n/8, mostStrangers)
	return Room{Strangers: strangers, Known: n - strangers}
}

// mostStrangers is three addresses' worth.
const mostStrangers = 6144
