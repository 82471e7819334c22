package spec

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// configRef is the name of a config, or a config written in place.
type configRef struct {
	name   string
	inline *configFile
}

// UnmarshalConfig reads a word or a mapping.
func (r *configRef) UnmarshalConfig(v config.Value) {
	if text, ok := v.Text(); ok {
		r.name = text
		return
	}
	r.inline = &configFile{}
	v.Decode(r.inline)
}

// zones is a number of zones; 0 means all.
type zones int

// Set reads "all" or a count of at least 1.
func (z *zones) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case text == "all":
		*z = 0
	case err != nil || n == 0:
		return errorf("%q is no number of zones; write all, or a count of at least 1", text)
	default:
		*z = zones(n)
	}
	return nil
}

// Wanted says what is legal.
func (zones) Wanted() string { return "all or a number of zones" }

// bandwidth is a rate in bytes a second.
type bandwidth int64

// Set reads a size with "/s" behind it.
func (b *bandwidth) Set(text string) error {
	var size config.Size
	number, ok := strings.CutSuffix(text, "/s")
	if err := size.Set(number); !ok || err != nil {
		return errorf("%q is no rate; write for instance 200MiB/s", text)
	}
	if size <= 0 {
		return errorf("with %s nothing could ever be fetched; use at least 1KiB/s, or remove the key for no limit", text)
	}
	*b = bandwidth(size)
	return nil
}

// Wanted says what is legal.
func (bandwidth) Wanted() string { return "a rate such as 200MiB/s" }

// effect is a ratio in parts per million.
type effect int64

// Set reads a factor such as 2x.
func (e *effect) Set(text string) error {
	number, ok := strings.CutSuffix(text, "x")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || strings.Trim(number, ".0123456789") != "" {
		return errorf("%q is no factor; write for instance 2x or 1.2x", text)
	}
	if f < 1.01 || f > 1000 {
		return errorf("%q cannot be told from chance, or never happens; use 1.01x to 1000x", text)
	}
	*e = effect(math.Round(f * deploy.Million))
	return nil
}

// Wanted says what is legal.
func (effect) Wanted() string { return "a factor such as 2x" }

// limit is a duration, or "none".
type limit time.Duration

// Set reads a duration or the word none, which is 0.
func (l *limit) Set(text string) error {
	if text == "none" {
		*l = 0
		return nil
	}
	d, err := config.ParseDuration(text)
	*l = limit(d)
	return err
}

// Wanted says what is legal.
func (limit) Wanted() string { return "a duration such as 2h, or none" }

// commandFile is a program with arguments, as a list or as words of one text.
type commandFile []string

// UnmarshalConfig reads a text or a list.
func (c *commandFile) UnmarshalConfig(v config.Value) {
	if text, ok := v.Text(); ok {
		*c = strings.Fields(text)
	} else {
		v.Decode((*[]string)(c))
	}
	if len(*c) == 0 {
		v.Errorf("needs a program, such as scripts/check.sh or [scripts/check.sh, --fast]")
	}
}

// selectFile says which targets a wave takes.
type selectFile struct {
	remainder bool
	part      selectPart
}

type selectPart struct {
	Count   *int          `yaml:"count" min:"1"`
	Percent *config.Share `yaml:"percent"`
	From    string        `yaml:"from"`
	Prefer  string        `yaml:"prefer"`
	Balance string        `yaml:"balance" enum:"zone"`
}

// UnmarshalConfig reads the word remainder or a mapping.
func (s *selectFile) UnmarshalConfig(v config.Value) {
	if text, ok := v.Text(); ok {
		if s.remainder = text == "remainder"; !s.remainder {
			v.Errorf("%q selects nothing; write remainder, {count: N} or {percent: N%%}", text)
		}
		return
	}
	v.Decode(&s.part)
	switch p := s.part; {
	case !v.Clean():
	case p.Count == nil && p.Percent == nil:
		v.Errorf("selects nothing; add count or percent")
	case p.Count != nil && p.Percent != nil:
		v.Errorf("count and percent exclude each other; remove one")
	case p.From != "" && p.Balance != "":
		v.Errorf("from takes one zone and balance spreads over all; remove one")
	}
}
