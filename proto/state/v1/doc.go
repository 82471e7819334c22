// Package statev1 of proto/state/v1 is the format of the replicated log's entries.
package statev1
