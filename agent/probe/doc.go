// Package probe asks an application whether it is healthy: by HTTP, by TCP or
// by a command of its revision, several times, with the answers as evidence.
// It decides nothing about what follows.
package probe
