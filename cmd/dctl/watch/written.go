package watch

import (
	"strings"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// written keeps the last lines of what each hook wrote.
type written struct {
	order []string
	text  map[string]string
}

func newWritten() *written { return &written{text: map[string]string{}} }

// tailBytes bounds what is kept of one hook.
const tailBytes = 16 << 10

func (t *written) add(r *controlv1.LogsResponse) {
	of := strings.TrimSpace(output.Line(r.Host) + " " + output.Line(r.Event) + " " + output.Line(r.Script))
	if _, ok := t.text[of]; !ok {
		t.order = append(t.order, of)
	}
	text := t.text[of] + string(r.Data) + r.Error
	t.text[of] = text[max(0, len(text)-tailBytes):]
}

func (t *written) empty() bool { return len(t.order) == 0 }

// String shows the last hooks, each with its last lines.
func (t *written) String() string {
	const hooks, lines = 4, 10
	var b strings.Builder
	for _, of := range t.order[max(0, len(t.order)-hooks):] {
		b.WriteString("==> " + of + " <==\n")
		for _, l := range output.LastLines(t.text[of], lines) {
			b.WriteString("  | " + output.Clean(l) + "\n")
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
