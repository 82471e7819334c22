// Package memory keeps a program small beside the applications of its host.
package memory

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// limit holds while a large revision is unpacked.
const limit = 56 << 20

// Limit bounds what the heap takes: percent is how much it may grow before it
// is collected. GOGC and GOMEMLIMIT win.
func Limit(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}

// Relax gives memory back when a program has become idle: the free part of the
// heap, and the pages of the program that only its start or an install needed.
func Relax() {
	debug.FreeOSMemory()
	DropProgram()
}

// DropProgram unmaps the clean, read-only pages of the program's own file. What
// is needed again is mapped again from the page cache, a few pages in a
// minute; all of it was touched once, by the runtime's own start.
func DropProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // no more than a saving is lost, here and below
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 || !readOnly(perms) {
			continue
		}
		if strings.HasSuffix(strings.TrimSpace(line), exe) {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}

// readOnly answers for the permissions of a mapping: dropping one that was
// ever written would lose what was written.
func readOnly(perms string) bool {
	return strings.HasPrefix(perms, "r-") && strings.HasSuffix(perms, "p")
}
