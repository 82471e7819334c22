// Package histories judges what clients of a cluster were answered: whether one
// machine that does each request once, at some moment between its first call and its
// answer, could have answered so.
package histories

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does to a register, which holds a value or nothing.
type Kind string

// Kinds. A request that is sent again under its id is one operation, from the first
// call to the answer: that the repetitions do nothing is what is judged.
const (
	Set  Kind = "set"
	Lift Kind = "lift" // takes the value away; answers whether there was one
	Read Kind = "read" // answers the value, "" for none
)

// Op is one operation of a client, on a clock that all clients share.
type Op struct {
	Client   int
	Register string
	Kind     Kind
	Value    string // set or read
	Found    bool   // by a lift
	Call     time.Duration
	Return   time.Duration
	// Open says that no answer came: it may take effect at any time from its call on,
	// or never. Return counts for nothing then.
	Open bool
}

func (o Op) String() string {
	answer := fmt.Sprintf("returned %s", o.Return)
	if o.Open {
		answer = "never answered"
	}
	what := fmt.Sprintf("%s %q", o.Kind, o.Value)
	if o.Kind == Lift {
		what = fmt.Sprintf("lift, found %t", o.Found)
	}
	return fmt.Sprintf("client %d: %s: %s, called %s, %s", o.Client, o.Register, what, o.Call, answer)
}

// History collects operations. Its methods may be called concurrently.
type History struct {
	mu  sync.Mutex
	ops []Op
}

// Add records an operation that has ended.
func (h *History) Add(o ...Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o...)
}

// Len is the number of operations.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Check returns an error that shows, of the first register whose operations no such
// machine could have answered, those around where it goes wrong. It gives up, with an
// error, after limit.
func (h *History) Check(limit time.Duration) error {
	h.mu.Lock()
	of := map[string][]porcupine.Operation{}
	for _, o := range h.ops {
		p := porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
		if o.Open {
			p.Return = math.MaxInt64
		}
		of[o.Register] = append(of[o.Register], p)
	}
	h.mu.Unlock()
	var names []string
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch porcupine.CheckOperationsTimeout(register, of[name], limit) {
		case porcupine.Ok:
		case porcupine.Unknown:
			return fmt.Errorf("%s: %d operations were not judged within %s", name, len(of[name]), limit)
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(register, of[name], limit)
			return fmt.Errorf("%s: no order of its %d operations explains the answers; after the longest that does:\n%s",
				name, len(of[name]), around(of[name], info))
		}
	}
	return nil
}

// around shows the operations that come next, in the order of their returns, where
// the longest explanation ends.
func around(ops []porcupine.Operation, info porcupine.LinearizationInfo) string {
	explained := map[int]bool{}
	var last []int
	for _, partition := range info.PartialLinearizations() {
		for _, one := range partition {
			if len(one) > len(last) {
				last = one
			}
		}
	}
	var lines []string
	for _, i := range last {
		explained[i] = true
	}
	for _, i := range last[max(0, len(last)-3):] {
		lines = append(lines, "  explained   "+ops[i].Input.(Op).String())
	}
	var left []porcupine.Operation
	for i, o := range ops {
		if !explained[i] {
			left = append(left, o)
		}
	}
	slices.SortFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, o := range left[:min(len(left), 5)] {
		lines = append(lines, "  unexplained "+o.Input.(Op).String())
	}
	return strings.Join(lines, "\n")
}

// register is one that begins empty. Its state is its value.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		value, o := state.(string), input.(Op)
		switch o.Kind {
		case Set:
			return true, o.Value
		case Lift:
			return o.Open || o.Found == (value != ""), ""
		case Read:
			return o.Open || o.Value == value, value
		}
		return false, value
	},
}
