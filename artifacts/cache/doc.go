// Package cache keeps the content of revisions on a host by its sha256,
// fetches what it lacks from a store and unpacks releases from it.
package cache
