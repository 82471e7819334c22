package deploy

import (
	"cmp"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
)

// sorted iterates a map by key, the only way a map is ranged over here.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// Zones returns the zones that have targets of the group, in order.
func (g *Group) Zones() []string {
	var out []string
	for z, u := range sorted(g.use) {
		if z != "" && u.members > 0 {
			out = append(out, z)
		}
	}
	return out
}

// sortedRevisions returns the revisions by digest.
func sortedRevisions(m map[Digest]*Revision) []*Revision {
	out := slices.Collect(maps.Values(m))
	slices.SortFunc(out, func(a, b *Revision) int { return cmp.Compare(a.Digest, b.Digest) })
	return out
}

// hash is a stable hash of a text, well mixed.
func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}
