package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a duration as a flag's value or a field: 90s, 10m, 1h30m, 7d.
type Duration time.Duration

// Set reads text; see ParseDuration.
func (d *Duration) Set(text string) error {
	v, err := ParseDuration(text)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

func (d Duration) String() string { return FormatDuration(time.Duration(d)) }

// Type names the value in a flag's help.
func (Duration) Type() string { return "duration" }

// Wanted says what is legal.
func (Duration) Wanted() string { return "a duration such as 90s, 10m or 7d" }

// ParseDuration reads a duration that is not negative. Beside Go's units there
// is d, of 24 hours.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration; write for instance 90s, 10m, 1h30m or 7d", text)
	if text == "0" {
		return 0, nil
	}
	if _, err := strconv.Atoi(text); err == nil && text[0] != '-' {
		return 0, fmt.Errorf("%q has no unit; write for instance %ss or %sm", text, text, text)
	}
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n > math.MaxInt64/uint64(24*time.Hour)/2 {
		return 0, bad
	}
	out := time.Duration(n) * 24 * time.Hour
	if rest == "" && ok {
		return out, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-out {
		return 0, bad
	}
	return out + d, nil
}

// FormatDuration writes a duration as people do: 10m, not 10m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
