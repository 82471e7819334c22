// Package naming says what can be a name: of a revision, an application, a
// group, a host, a person. Whoever takes one from outside asks here.
package naming

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Longest names, in bytes: of a host, which DNS limits, and of anything else.
const (
	LongestHost = 253
	Longest     = 128
)

// reserved words name other things where names stand: links and folders beside
// revisions, and what @current and @previous resolve to.
var reserved = []string{"current", "previous", "releases"}

// Check says why a name cannot be one. A name stands in paths, URLs, lists,
// command lines and terminals, so it is one word of letters, digits and . _ @ + -
// that begins with a letter or a digit, without "..", and no word that means
// something else there.
func Check(what, name string) error { return check(what, name, Longest) }

// CheckHost is Check for the name of a host.
func CheckHost(name string) error { return check("host", name, LongestHost) }

func check(what, name string, longest int) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s name %q: it %s", what, short(name), fmt.Sprintf(format, args...))
	}
	switch {
	case name == "":
		return bad("is missing")
	case len(name) > longest:
		return bad("has %d bytes, at most %d are allowed", len(name), longest)
	case !alphanumeric(rune(name[0])):
		return bad("must begin with a letter or digit")
	case strings.Contains(name, ".."):
		return bad("must not hold \"..\"")
	case slices.Contains(reserved, strings.ToLower(name)):
		return bad("is a reserved word; use another")
	}
	for _, r := range name {
		if !alphanumeric(r) && !strings.ContainsRune("._@+-", r) {
			return bad("must be letters, digits and . _ @ + -, so %q cannot be in it", r)
		}
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// CheckText says why a value that people are shown, such as a zone or a label,
// cannot be one: it is too long, or would do something to a terminal.
func CheckText(what, text string, longest int) error {
	if len(text) > longest {
		return fmt.Errorf("%s %q: it has %d bytes, at most %d are allowed", what, short(text), len(text), longest)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s %q: it is no UTF-8", what, short(text))
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s %q: %q cannot be printed", what, short(text), r)
		}
	}
	return nil
}

// Bounds of what a host says of itself, which goes into the log.
const (
	mostLabels   = 64
	longestLabel = 1024
)

// CheckHostWord says why what is said of a host cannot be: by itself, or by a person.
func CheckHostWord(name, zone, region string, labels map[string]string) error {
	return errors.Join(CheckHost(name), notAnID(name), CheckText("zone", zone, LongestHost),
		CheckText("region", region, LongestHost), CheckLabels(labels))
}

// CheckLabels says why labels of a host cannot be.
func CheckLabels(labels map[string]string) error {
	if len(labels) > mostLabels {
		return fmt.Errorf("%d labels are more than %d", len(labels), mostLabels)
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		errs = append(errs, CheckText("label", k, LongestHost),
			CheckText("value of label "+strconv.Quote(short(k)), labels[k], longestLabel))
	}
	return errors.Join(errs...)
}

// notAnID refuses a name that reads like the id of a host, a ULID: whoever names that
// host by its id would mean this one.
func notAnID(name string) error {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	if len(name) == 26 && strings.Trim(strings.ToUpper(name), digits) == "" {
		return fmt.Errorf("host name %q: it reads like the id of a host; use another", name)
	}
	return nil
}

// short keeps an error readable.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
