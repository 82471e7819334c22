// Package arch holds the tests of the house's rules: who may import whom, what
// the pure packages may use, what every package must say of itself.
package arch
