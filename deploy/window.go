package deploy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WindowPart is one part of a window: times of day on days of the week, as the
// clocks in one place show them.
type WindowPart struct {
	Days     [7]bool // by time.Weekday
	From, To int     // minutes since midnight; To is not part of it. To <= From is a night into the next day
	Zone     string  // of the time zone database; whoever knows it must check it
}

const windowForm = `write for instance "Mon-Thu 09:00-16:00 Europe/Rome"`

// ParseWindow reads the text of a window: parts separated by commas, each of
// days (daily, Mon, Mon-Thu, several with blanks), times (09:00-16:00, at most
// 24:00, into the next day when the end comes first) and a time zone. A part
// without a zone has that of the part after it.
func ParseWindow(text string) ([]WindowPart, error) {
	var out []WindowPart
	for _, one := range strings.Split(text, ",") {
		p, err := parseWindowPart(strings.Fields(one))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	zone := ""
	for i := len(out) - 1; i >= 0; i-- {
		if out[i].Zone == "" {
			out[i].Zone = zone
		}
		if zone = out[i].Zone; zone == "" {
			return nil, fmt.Errorf("%q names no time zone; %s", text, windowForm)
		}
	}
	return out, nil
}

func parseWindowPart(words []string) (WindowPart, error) {
	var p WindowPart
	at := slices.IndexFunc(words, func(w string) bool { return strings.Contains(w, ":") })
	if at < 1 || len(words) > at+2 {
		return p, fmt.Errorf("%q is no window of days, times and a time zone; %s", strings.Join(words, " "), windowForm)
	}
	for _, w := range words[:at] {
		if err := p.days(w); err != nil {
			return p, err
		}
	}
	if len(words) == at+2 {
		p.Zone = words[at+1]
	}
	from, to, _ := strings.Cut(words[at], "-")
	var ok1, ok2 bool
	p.From, ok1 = minutes(from)
	p.To, ok2 = minutes(to)
	switch {
	case !ok1 || !ok2 || p.From == 24*60:
		return p, fmt.Errorf("%q is no time of day; %s", words[at], windowForm)
	case p.From == p.To:
		return p, fmt.Errorf("%q never opens; for whole days write 00:00-24:00", words[at])
	}
	return p, nil
}

func (p *WindowPart) days(word string) error {
	if word == "daily" {
		p.Days = [7]bool{true, true, true, true, true, true, true}
		return nil
	}
	first, last, ranged := strings.Cut(word, "-")
	if !ranged {
		last = first
	}
	from, ok1 := weekday(first)
	to, ok2 := weekday(last)
	if !ok1 || !ok2 {
		return fmt.Errorf("%q is no day; use Mon, Tue, Wed, Thu, Fri, Sat, Sun, a range such as Mon-Thu, or daily", word)
	}
	for d := from; ; d = (d + 1) % 7 {
		p.Days[d] = true
		if d == to {
			return nil
		}
	}
}

func weekday(word string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if d.String()[:3] == word {
			return d, true
		}
	}
	return 0, false
}

func minutes(text string) (int, bool) {
	if len(text) != 5 || text[2] != ':' {
		return 0, false
	}
	h, err1 := strconv.ParseUint(text[:2], 10, 8)
	m, err2 := strconv.ParseUint(text[3:], 10, 8)
	n := int(h*60 + m)
	return n, err1 == nil && err2 == nil && m < 60 && n <= 24*60
}

// Open reports whether the part is open when clocks in its zone show that
// minute of that day. A minute that the clocks skip is never, one that they
// repeat is both times.
func (p *WindowPart) Open(day time.Weekday, minute int) bool {
	if p.From < p.To {
		return p.Days[day] && p.From <= minute && minute < p.To
	}
	return p.Days[day] && minute >= p.From || p.Days[(day+6)%7] && minute < p.To
}
