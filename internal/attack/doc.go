// Package attack attacks a real cluster with clients of its own: raw TLS, gRPC
// and TCP, never the agent or dctl. It holds tests alone.
package attack
