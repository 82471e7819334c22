package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Share is a count such as 3, or a part such as 25% in parts per million.
type Share struct {
	Count    int
	PPM      int64
	Relative bool // PPM counts, not Count
}

// Set reads a count or a percentage of at most four decimals, up to 100%.
func (s *Share) Set(text string) error {
	number, relative := strings.CutSuffix(text, "%")
	if !relative {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is no share; write a count such as 3 or a percentage such as 25%%", text)
		}
		*s = Share{Count: int(n)}
		return nil
	}
	ppm, ok := parsePercent(number)
	if !ok {
		return fmt.Errorf("%q is no percentage; write 0%% to 100%%, with at most four decimals", text)
	}
	*s = Share{PPM: ppm, Relative: true}
	return nil
}

// parsePercent reads 0 to 100 with up to four decimals as parts per million,
// without floating point.
func parsePercent(number string) (int64, bool) {
	whole, part, dot := strings.Cut(number, ".")
	if len(part) > 4 || dot && part == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+(part + "0000")[:4], 10, 32)
	return int64(n), err == nil && whole != "" && n <= 1_000_000
}

func (s Share) String() string {
	if !s.Relative {
		return strconv.Itoa(s.Count)
	}
	text := fmt.Sprintf("%d.%04d", s.PPM/10_000, s.PPM%10_000)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".") + "%"
}

// Type names the value in a flag's help.
func (Share) Type() string { return "share" }

// Wanted says what is legal.
func (Share) Wanted() string { return "a count such as 3 or a percentage such as 25%" }
