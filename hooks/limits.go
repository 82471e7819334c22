package hooks

import (
	"cmp"
	"time"
)

// Limits bounds what a script may cost. The zero value of a field takes its
// default.
type Limits struct {
	// Head and Tail are the bytes of a log that are kept from its start and
	// its end. Default 1 MiB and 3 MiB.
	Head, Tail int64
	// Backlog is how far the log may fall behind a script that floods before
	// output is skipped, in bytes; it also bounds the disk used meanwhile.
	// Default 8 MiB.
	Backlog int64
	// Grace is the time between TERM and KILL. Default 5 s.
	Grace time.Duration
}

func (l Limits) withDefaults() Limits {
	l.Head = cmp.Or(l.Head, 1<<20)
	l.Tail = cmp.Or(l.Tail, 3<<20)
	l.Backlog = cmp.Or(l.Backlog, 8<<20)
	l.Grace = cmp.Or(l.Grace, 5*time.Second)
	return l
}
