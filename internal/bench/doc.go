// Package bench measures a cluster: real coordinators as processes, and hosts that
// are simulated, but speak the real protocol over mutual TLS.
package bench
