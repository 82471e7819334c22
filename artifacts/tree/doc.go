// Package tree gives an unpacked revision all that is not content: owners,
// modes, times and symlinks; and makes it durable.
package tree
