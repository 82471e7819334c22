// Package bundle reads bundles as people make them (folders, zips, tars),
// packs and pushes one as a revision, or unpacks it in a single pass.
package bundle
