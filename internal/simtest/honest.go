package simtest

import (
	"context"
	"log/slog"
	"testing"
)

// honest is the log of a cluster in which nobody is hostile: that anybody has
// met a limit fails the test. All else is dropped.
type honest struct{ t testing.TB }

// Enabled implements slog.Handler.
func (honest) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h honest) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "a caller had its share" {
		text := ""
		r.Attrs(func(a slog.Attr) bool {
			text += " " + a.String()
			return true
		})
		h.t.Errorf("an honest caller met a limit:%s", text)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h honest) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h honest) WithGroup(string) slog.Handler { return h }
