// Package e2e tests the whole system with real processes on loopback: real
// coordinators, agents, S3 server, bundles and hook scripts, and real crashes.
package e2e
