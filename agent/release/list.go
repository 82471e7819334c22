package release

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/groundswell/groundswell/internal/durable"
)

// readList returns the clean-up list: a quoted path a line, parents first. A
// last line that is cut off is ignored.
func (r *Releases) readList(app string) ([]string, error) {
	data, err := os.ReadFile(r.app(app, "installed"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read clean-up list of %s: %w", app, err)
	}
	var paths []string
	for line := range strings.Lines(string(data)) {
		path, err := strconv.Unquote(strings.TrimSuffix(line, "\n"))
		if err != nil || !strings.HasSuffix(line, "\n") {
			continue
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func (r *Releases) writeList(app string, paths []string) error {
	var b strings.Builder
	for _, p := range paths {
		b.WriteString(strconv.Quote(p) + "\n")
	}
	if err := durable.WriteFile(r.app(app, "installed"), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write clean-up list of %s: %w", app, err)
	}
	return nil
}
