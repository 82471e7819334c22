package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of the agent's own memory. An idle agent's heap is below 8 MiB, so a
// tighter collection costs nothing; the limit holds while a large revision is
// unpacked. GOGC and GOMEMLIMIT win.
const (
	gcPercent   = 40
	memoryLimit = 56 << 20
)

func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// relax gives memory back when the agent has become idle: the free part of the
// heap, and the pages of the program that only its start or an install needed.
func relax() {
	debug.FreeOSMemory()
	dropProgram()
}

// dropProgram unmaps the clean, read-only pages of the program's own file. What
// is needed again is mapped again from the page cache, a few pages in a
// minute; all of it was touched once, by the runtime's own start.
func dropProgram() {
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
