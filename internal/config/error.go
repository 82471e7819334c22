package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one problem of a file, or of a flag or variable laid over it.
type Error struct {
	File   string
	Line   int // from 1; 0 is unknown
	Column int // from 1, in characters; 0 is unknown
	Field  string
	Text   string // what is wrong and what to do
	Source string // the line, for the caret; may be empty
}

// Error returns "file:line:column: field: text" and, where known, the line
// with a caret under the column.
func (e *Error) Error() string { return e.Headline() + e.caret() }

// Headline is the error without the line and the caret.
func (e *Error) Headline() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	b.WriteString(": " + e.Text)
	return strings.TrimPrefix(b.String(), ": ")
}

// Kind tells the edge that the input is at fault.
func (e *Error) Kind() string { return "invalid" }

// widest is the longest line worth showing; a caret beyond it helps nobody.
const widest = 160

func (e *Error) caret() string {
	line := []rune(e.Source)
	if len(line) == 0 || e.Column < 1 || e.Column > min(len(line)+1, widest) {
		return ""
	}
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return '\t'
		}
		return ' '
	}, string(line[:e.Column-1]))
	margin := fmt.Sprintf("%5d | ", e.Line)
	return fmt.Sprintf("\n%s%s\n%s| %s^", margin, string(line[:min(len(line), widest)]),
		strings.Repeat(" ", len(margin)-2), indent)
}

// Errors is every problem of a file, in the order of its lines.
type Errors []*Error

// Error lists the problems, one after the other.
func (e Errors) Error() string {
	var parts []string
	for _, p := range e {
		parts = append(parts, p.Error())
	}
	return strings.Join(parts, "\n")
}

// Kind tells the edge that the input is at fault.
func (e Errors) Kind() string { return "invalid" }

// Unwrap gives the problems to errors.As.
func (e Errors) Unwrap() []error {
	var out []error
	for _, p := range e {
		out = append(out, p)
	}
	return out
}

// err returns nil for no problem, else all of them sorted.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	out := slices.Clone(e)
	slices.SortStableFunc(out, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}
