// Package bundletest makes bundles, stores and their faults for tests, and
// compares a tree with its manifest.
package bundletest
