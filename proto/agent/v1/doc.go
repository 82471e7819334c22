// Package agentv1 of proto/agent/v1 is the contract between a coordinator and the agent of one host.
package agentv1
