// Package artifacts is the format of a revision, and what all who read, write
// and keep revisions share.
//
// A revision is a [Manifest]: the sorted list of its files with their sizes,
// modes and sha256 sums. The sha256 of the manifest's canonical encoding is
// the revision's [Digest], the only name by which anything is fetched. How
// the content lies in a [Store] (packs and an [Index]) is no part of it.
//
//	directory, zip, tar, tgz --bundle.Pack--> Manifest + Index + packs --Push--> Store
//	Store --cache.Fetcher--> cache.Cache (by sha256) --Unpack--> release folder
//
// Trust runs one way: a Digest pins a manifest, the manifest pins every
// file. Indexes, packs, stores, URLs and the cache itself are never trusted;
// each byte is hashed on its way into the cache and again on its way into a
// release. DESIGN.md, beside this file, states the formats and argues the
// crash safety.
package artifacts
