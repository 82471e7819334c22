// Package near finds the name that somebody most likely meant.
package near

import "strings"

// Name returns the word of known that text most likely meant, or "" if none
// is near. Case, '-' and '_' do not count.
func Name(text string, known []string) string {
	best, found := "", max(1, len(text)/3)+1
	for _, k := range known {
		if d := Distance(fold(text), fold(k)); d < found {
			best, found = k, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// Distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a; beyond 100 letters it does not look, and says 100.
func Distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
