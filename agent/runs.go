package agent

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// run is one run of a script that has a folder, and with it a log, on disk.
type run struct {
	id         string
	generation uint64
	number     int // of the step
	event      string
	script     int // in its event, from 0
	retry      int
}

// runPattern is what follows the prefix in a run's id: a step's ID, the
// number of its script and of its repetition.
var runPattern = regexp.MustCompile(`^g(\d+)-(\d+)-hook-([A-Za-z]+)\.(\d+)(?:\.r(\d+))?$`)

func parseRun(prefix, id string) (run, bool) {
	rest, ours := strings.CutPrefix(id, prefix)
	m := runPattern.FindStringSubmatch(rest)
	if !ours || m == nil {
		return run{}, false
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // digits, or nothing for 0
	generation, err := strconv.ParseUint(m[1], 10, 64)
	return run{id, generation, number(m[2]), m[3], number(m[4]), number(m[5])}, err == nil
}

// runs lists the runs of the application's hooks in the order they began.
func (t *target) runs() []run {
	entries, err := os.ReadDir(t.o.path("hooks"))
	if err != nil {
		return nil // no run, no folder
	}
	var out []run
	for _, e := range entries {
		if r, ok := parseRun(t.runPrefix(), e.Name()); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b run) int {
		return cmp.Or(cmp.Compare(a.generation, b.generation), cmp.Compare(a.number, b.number),
			cmp.Compare(a.script, b.script), cmp.Compare(a.retry, b.retry))
	})
	return out
}
