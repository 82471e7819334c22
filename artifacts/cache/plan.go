package cache

import (
	"cmp"
	"slices"

	"github.com/groundswell/groundswell/artifacts"
)

// want is one content to fetch, with a path to name it by.
type want struct {
	path  string
	sum   artifacts.Sum
	size  int64
	parts []artifacts.Part
}

// job is what one worker does: wants whose single parts lie close together
// in one pack, or one want of several parts.
type job []want

const (
	// maxRange is the most that one job reads in one request; S3 reaches its
	// full speed at 8 to 16 MB.
	maxRange = 8 << 20
	// maxGap is what a range may read in vain: at 85 MB/s it costs 3 ms, less
	// than another request.
	maxGap = 256 << 10
)

// plan joins wants into jobs. Files smaller than a request's cost never
// travel alone.
func plan(wants []want) []job {
	var jobs []job
	var near job
	slices.SortStableFunc(wants, byPlace)
	for _, w := range wants {
		switch {
		case len(w.parts) != 1:
			jobs = append(jobs, job{w})
		case len(near) > 0 && near.reaches(w.parts[0]):
			near = append(near, w)
		default:
			jobs = appendJob(jobs, near)
			near = job{w}
		}
	}
	return appendJob(jobs, near)
}

func appendJob(jobs []job, j job) []job {
	if len(j) == 0 {
		return jobs
	}
	return append(jobs, j)
}

func byPlace(a, b want) int {
	if c := cmp.Compare(len(b.parts), len(a.parts)); c != 0 && (len(a.parts) != 1 || len(b.parts) != 1) {
		return c // the longest first, so that no worker ends alone with it
	}
	if len(a.parts) == 0 {
		return 0
	}
	return cmp.Or(cmp.Compare(a.parts[0].Pack, b.parts[0].Pack), cmp.Compare(a.parts[0].Offset, b.parts[0].Offset))
}

// reaches reports whether p may be read in the same range as j, whose wants
// lie in order and do not overlap.
func (j job) reaches(p artifacts.Part) bool {
	first, last := j[0].parts[0], j[len(j)-1].parts[0]
	end := last.Offset + last.Stored
	return p.Pack == first.Pack && p.Offset >= end && p.Offset-end <= maxGap &&
		p.Offset+p.Stored-first.Offset <= maxRange
}
