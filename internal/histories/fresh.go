package histories

import (
	"sync"
	"time"
)

// Fresh knows how old what is read may be, of registers that one client each writes,
// with numbers that rise. Its methods may be called concurrently.
type Fresh struct {
	Within time.Duration // a value that was replaced longer ago is not read any more

	mu      sync.Mutex
	written map[string][]write
}

type write struct {
	number int
	at     time.Duration // of its answer
}

// Wrote says that a write was answered at a time.
func (f *Fresh) Wrote(register string, number int, at time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.written == nil {
		f.written = map[string][]write{}
	}
	all := append(f.written[register], write{number, at})
	for len(all) > 1 && all[1].at < at-2*f.Within { // reads that are still asked about began later
		all = all[1:]
	}
	f.written[register] = all
}

// Least returns the lowest number that a read which begins at a time may find; 0 is any.
func (f *Fresh) Least(register string, at time.Duration) (number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.written[register] {
		if w.at <= at-f.Within {
			number = w.number
		}
	}
	return number
}
