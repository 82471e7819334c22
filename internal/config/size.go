package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes as a flag's value or a field: 64MiB, 1.5GB.
type Size int64

type unit struct {
	name  string
	bytes float64
}

func units() []unit {
	return []unit{
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"TiB", 1 << 40},
		{"kB", 1e3},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"B", 1},
	}
}

// Set reads text such as 64MiB. A unit is required, except for 0.
func (s *Size) Set(text string) error {
	if text == "0" {
		*s = 0
		return nil
	}
	for _, u := range units() {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || strings.ContainsAny(number, "+-eExXnNpP_") || f*u.bytes >= math.MaxInt64 {
			break
		}
		*s = Size(f * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is no size; write for instance 512KiB, 64MiB or 2GB", text)
}

// String writes the size in the largest unit that divides it.
func (s Size) String() string {
	all := units()
	for i := 3; i >= 0; i-- {
		if u := int64(all[i].bytes); s != 0 && int64(s)%u == 0 {
			return strconv.FormatInt(int64(s)/u, 10) + all[i].name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Type names the value in a flag's help.
func (Size) Type() string { return "size" }

// Wanted says what is legal.
func (Size) Wanted() string { return "a size such as 64MiB" }
