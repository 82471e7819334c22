package histories

import (
	"strings"
	"testing"
	"time"
)

// op is one in a line of a history: call and return in seconds.
func op(client int, kind Kind, value string, call, back int) Op {
	return Op{
		Client: client, Register: "r", Kind: kind, Value: value, Found: value != "",
		Call: time.Duration(call) * time.Second, Return: time.Duration(back) * time.Second,
	}
}

func open(o Op) Op {
	o.Open = true
	return o
}

// TestVerdicts: what a cluster that keeps its word can answer is accepted, and each
// way of breaking it is not.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		good bool
		ops  []Op
	}{
		{"one after the other", true, []Op{
			op(0, Read, "", 0, 1), op(0, Set, "a", 2, 3), op(1, Read, "a", 4, 5), op(0, Lift, "a", 6, 7), op(0, Lift, "", 8, 9),
		}},
		{"two at once, either order", true, []Op{op(0, Set, "a", 0, 9), op(1, Set, "b", 1, 8), op(2, Read, "a", 10, 11)}},
		{"not answered, and done", true, []Op{open(op(0, Set, "a", 0, 0)), op(1, Read, "", 1, 2), op(1, Read, "a", 3, 4)}},
		{"not answered, and not done", true, []Op{open(op(0, Set, "a", 0, 0)), op(1, Read, "", 1, 2), op(1, Set, "b", 3, 4)}},
		{"an acknowledged write is lost", false, []Op{op(0, Set, "a", 0, 1), op(1, Read, "", 2, 3)}},
		{"a stale read", false, []Op{op(0, Set, "a", 0, 1), op(0, Set, "b", 2, 3), op(1, Read, "a", 4, 5)}},
		{"a request is done twice", false, []Op{
			op(0, Set, "a", 0, 1), op(1, Lift, "a", 2, 3), op(2, Read, "a", 4, 5),
		}},
		{"a lift is done twice", false, []Op{
			op(0, Set, "a", 0, 1), op(1, Lift, "a", 2, 3), op(0, Set, "b", 4, 5), op(2, Read, "", 6, 7),
		}},
		{"back and forth", false, []Op{
			open(op(0, Set, "a", 0, 0)), op(1, Read, "a", 1, 2), op(1, Read, "", 3, 4),
		}},
		{"done before it was asked", false, []Op{op(1, Read, "a", 0, 1), op(0, Set, "a", 2, 3)}},
		{"two leaders", false, []Op{
			op(0, Set, "a", 0, 1), op(1, Lift, "a", 2, 3), op(2, Lift, "a", 4, 5),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &History{}
			h.Add(c.ops...)
			err := h.Check(10 * time.Second)
			if (err == nil) != c.good {
				t.Fatalf("%v, want %t", err, c.good)
			}
			if err != nil && !strings.Contains(err.Error(), "unexplained client") {
				t.Errorf("the error names nothing: %v", err)
			}
		})
	}
}

func TestFresh(t *testing.T) {
	f := &Fresh{Within: 5 * time.Second}
	for n := 1; n <= 30; n++ {
		f.Wrote("r", n, time.Duration(n)*time.Second)
	}
	if got := f.Least("r", 30*time.Second); got != 25 {
		t.Errorf("5 seconds ago %d was there, want 25", got)
	}
	if got := f.Least("r", 24*time.Second); got != 19 {
		t.Errorf("a read that began 6 seconds ago may find %d, want 19", got)
	}
	if got := f.Least("other", time.Hour); got != 0 {
		t.Errorf("nobody wrote, and %d is asked for", got)
	}
}
