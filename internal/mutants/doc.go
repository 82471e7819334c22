// Package mutants holds a table of rules taken out of the source, one at a time,
// and the test that must notice each. It is tests alone: `make mutants`.
package mutants
