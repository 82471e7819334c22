package deploy

import (
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// sorted iterates a map by key, the only way a map is ranged over here.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if len(m) == 0 { // of most groups
			return
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// visit calls f with everything in a map, in an order that is chance: for what is to be
// sorted, or filed under its key, elsewhere.
func visit[K comparable, V any](m map[K]V, f func(K, V)) {
	for k, v := range maps.All(m) {
		f(k, v)
	}
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

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// short prints a duration without the parts that are zero.
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(text) - len(zero); n > 0 && text[n:] == zero {
			text = text[:n+1]
		}
	}
	return text
}

// list shortens a long list in the middle, where nobody looks.
func list(items []string) string {
	if len(items) > 12 {
		items = append(append(append([]string{}, items[:8]...), fmt.Sprintf("…%d more…", len(items)-10)),
			items[len(items)-2:]...)
	}
	return "[" + strings.Join(items, " ") + "]"
}
