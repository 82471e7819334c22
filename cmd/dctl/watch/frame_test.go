package watch

import (
	"io"
	"strings"
	"testing"
)

// Where a terminal wraps the last picture anew, all of its rows are replaced.
func TestFrameRows(t *testing.T) {
	f := frame{out: io.Discard, reflows: true}
	lines := []string{strings.Repeat("x", 99), "", strings.Repeat("y", 40), strings.Repeat("z", 80)}
	if err := f.draw(100, "", lines); err != nil {
		t.Fatal(err)
	}
	for width, want := range map[int]int{140: 4, 99: 4, 80: 5, 50: 6, 40: 7, 20: 5 + 1 + 2 + 4} {
		if got := f.rows(width); got != want {
			t.Errorf("at a width of %d the picture takes %d rows, want %d", width, got, want)
		}
	}
	f.reflows = false
	if got := f.rows(20); got != 4 {
		t.Errorf("where nothing is wrapped: %d", got)
	}
}
