package hooks

import (
	"fmt"
	"strings"
)

// Position is a place in a file; both numbers count from 1, zero is unknown.
type Position struct{ Line, Column int }

// Problem is one finding in an appspec or a revision.
type Problem struct {
	File string
	Pos  Position
	// Field is the path of the value, such as permissions[0].mode.
	Field string
	// Text says what is wrong and what would be right.
	Text string
}

// Error is the finding on one line: file:line:column: field: text.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Pos.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Pos.Line, max(p.Pos.Column, 1))
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// InvalidError is the answer to an appspec that must not be used. It holds
// every problem found, in the order of the file's sections.
type InvalidError struct{ Problems []Problem }

// Error lists the problems, one a line.
func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the problems to errors.As.
func (e *InvalidError) Unwrap() []error {
	all := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		all[i] = p
	}
	return all
}

// Kind tells the edge that the input is at fault.
func (e *InvalidError) Kind() string { return "invalid" }
