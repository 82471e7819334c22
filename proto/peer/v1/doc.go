// Package peerv1 of proto/peer/v1 is the contract between the coordinators of one cluster.
package peerv1
