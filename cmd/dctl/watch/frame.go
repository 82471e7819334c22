package watch

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// frame is a picture on a terminal that is drawn over and over in its place,
// below what stands there. It asks the terminal nothing, and what it drew last
// stays when it ends. One goroutine uses it.
type frame struct {
	out     io.Writer
	reflows bool  // the terminal wraps lines anew when its width changes
	widths  []int // of the lines drawn last
}

// draw replaces the last picture by lines of fewer than width columns each and
// fewer than the terminal's rows; above is text that stays over it.
func (f *frame) draw(width int, above string, lines []string) error {
	var b strings.Builder
	b.WriteString(ansi.SetModeSynchronizedOutput + "\r")
	if up := f.rows(width); up > 0 {
		b.WriteString(ansi.CursorUp(up))
	}
	f.widths = f.widths[:0]
	// Whole lines are erased: some terminals keep in mind that one was wrapped.
	for l := range strings.Lines(above) {
		b.WriteString(ansi.EraseEntireLine + strings.TrimRight(l, "\n") + "\r\n")
	}
	b.WriteString(ansi.ResetModeAutoWrap) // if the window shrinks just now, lines are cut
	for _, l := range lines {
		b.WriteString(ansi.EraseEntireLine + l + "\r\n")
		f.widths = append(f.widths, ansi.StringWidth(l))
	}
	b.WriteString(ansi.SetModeAutoWrap + ansi.EraseScreenBelow + ansi.ResetModeSynchronizedOutput)
	_, err := io.WriteString(f.out, b.String())
	return err
}

// rows is how many rows the last picture takes now: where the window became
// narrower, a terminal that reflows has wrapped its lines.
func (f *frame) rows(width int) int {
	n := len(f.widths)
	if !f.reflows || width <= 0 {
		return n
	}
	for _, w := range f.widths {
		n += max(w-1, 0) / width
	}
	return n
}
