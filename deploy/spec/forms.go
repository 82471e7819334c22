package spec

import (
	"strconv"
	"strings"

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
