package main

import (
	"strings"
	"testing"
	"time"
)

// An end is a duration or a moment to come, in the zone of the machine if it
// names none; anything else is told what to write, or what time it is.
func TestUntil(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Duration{
		"":                          0,
		"90m":                       90 * time.Minute,
		"2d":                        48 * time.Hour,
		"2026-12-01 13:30":          90 * time.Minute,
		"2026-12-01T13:30":          90 * time.Minute,
		"2026-12-01T13:30:00Z":      150 * time.Minute,
		"2026-12-01 13:30Z":         150 * time.Minute,
		"2026-12-01 13:30:05+01:00": 90*time.Minute + 5*time.Second,
		"2026-12-02":                12 * time.Hour,
	} {
		if got, err := untilFlag(text, now); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"0":                    "it is 2026-12-01 11:00:00Z now",
		"2026-12-01 12:00":     "it is 2026-12-01 11:00:00Z now",
		"2026-12-01T10:00:00Z": "is not to come",
		"monday":               `write for instance 90m, 2d, "2026-12-27 08:00"`,
		"-5m":                  "neither a duration nor a date",
	} {
		if _, err := untilFlag(text, now); err == nil || exitCode(err) != exitUsage ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}
