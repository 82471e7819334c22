package audit

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Others is the actor of what was refused to those beyond MostCounted.
const Others = "others"

// Bounds of what is recorded of refused requests: whoever is refused again and again must
// not push out of the audit what was done. Of one that goes on the pauses double, so that
// a whole day of it is some thirty records of each verb.
const (
	MostCounted  = 256 // actors and verbs at once
	longestPause = time.Hour
)

// Refusals counts refused requests, by who made them and which verb they asked for, until
// it is time to record them. It is not for concurrent use.
type Refusals struct {
	pause   time.Duration
	counted map[refused]*count
}

type refused struct{ actor, verb string }

// count is what was refused since it was recorded last, and when it may be again.
type count struct {
	Asked
	pause time.Duration
	due   time.Time
}

// NewRefusals returns an empty one, which gives what was refused once a pause.
func NewRefusals(pause time.Duration) *Refusals {
	return &Refusals{pause: pause, counted: map[refused]*count{}}
}

// Note counts a request, by what would be recorded of it alone.
func (f *Refusals) Note(r Asked, now time.Time) {
	r = r.Cleaned()
	r.Times, r.Since = max(1, r.Times), cmp.Or(r.Since, now.UnixMilli())
	c := f.counted[refused{r.Actor, r.Verb}]
	if c == nil && len(f.counted) >= MostCounted {
		r = Asked{Actor: Others, Outcome: r.Outcome, Times: r.Times, Since: r.Since, What: "requests of more actors and " +
			"verbs than are counted one by one"}
		c = f.counted[refused{Others, ""}]
	}
	if c == nil {
		c = &count{pause: f.pause, due: now.Add(f.pause)}
		f.counted[refused{r.Actor, r.Verb}] = c
	}
	if c.Times == 0 {
		c.Asked = r
		return
	}
	c.Times, c.Since = c.Times+r.Times, min(c.Since, r.Since)
	if c.App != r.App || c.Group != r.Group { // it is about more than one, so about none
		c.App, c.Group = "", ""
	}
	if c.Outcome != r.Outcome {
		c.Outcome = "various"
	}
	if c.Address != r.Address {
		c.Address = "various"
	}
}

// Due takes what is to be recorded now, in order, and forgets who has been quiet. What
// could not be recorded is noted again.
func (f *Refusals) Due(now time.Time) (out []Asked) {
	for _, key := range slices.SortedFunc(maps.Keys(f.counted), func(a, b refused) int {
		return cmp.Or(cmp.Compare(a.actor, b.actor), cmp.Compare(a.verb, b.verb))
	}) {
		c := f.counted[key]
		switch {
		case now.Before(c.due):
		case c.Times == 0:
			delete(f.counted, key)
		default:
			out = append(out, c.Asked)
			c.pause = min(2*c.pause, max(f.pause, longestPause))
			c.Asked, c.due = Asked{}, now.Add(c.pause)
		}
	}
	return out
}
