package deploy

import "fmt"

// RefusalKind says what a caller may do about a refusal.
type RefusalKind string

// Refusal kinds.
const (
	NotFound RefusalKind = "not_found"
	Invalid  RefusalKind = "invalid"  // wrong as asked
	Conflict RefusalKind = "conflict" // right, but not now
	Exists   RefusalKind = "exists"
)

// Refusal is a typed answer of Apply: the fact changed nothing.
type Refusal struct {
	Reason RefusalKind
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// Kind returns the kind, for those who map errors to a transport.
func (r *Refusal) Kind() string { return string(r.Reason) }

func refuse(k RefusalKind, format string, args ...any) error {
	return &Refusal{Reason: k, Text: fmt.Sprintf(format, args...)}
}

// changed refuses a fact of which no item fits any more, so that whoever
// decided it sees that nothing moved.
func changed(n int, what, verb string) error {
	if n == 0 {
		return refuse(Conflict, "no %s is left to %s", what, verb)
	}
	return nil
}
