package naming

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, good := range []string{
		"www", "v1.2.3+build.7", "9be01d7", "web-1.eu.example", "ann@example.org", "A_b", "0", "currently",
		strings.Repeat("a", Longest),
	} {
		if err := Check("revision", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "a..b", "../a", "/a", "a/b", `a\b`, "-rf", "--help", ".hidden", "_x", "@current",
		"current", "Previous", "releases", "a b", "a\tb", "a\nb", "a\x1b[31m", "a\x00", "a,b", "a:b", "a=b", "a|b", "a;b", "$(a)", "`a`", "a*", "a?",
		"ä", "a\u202eb", "a\xff", "%2e%2e", "~a", strings.Repeat("a", Longest+1),
	} {
		err := Check("revision", bad)
		if err == nil {
			t.Errorf("%q is taken for a name", bad)
		} else if strings.ContainsAny(err.Error(), "\x1b\x00\n") || len(err.Error()) > 250 {
			t.Errorf("the error is not fit to be shown: %q", err)
		}
	}
	if err := CheckHost(strings.Repeat("a", LongestHost)); err != nil {
		t.Error(err)
	}
}

func TestTexts(t *testing.T) {
	for _, good := range []string{"", "eu west 1a", "Zürich", "a=b,c/d"} {
		if err := CheckText("zone", good, 20); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"a\x1b[2J", "a\nb", "a\u202eb", "\xff", strings.Repeat("a", 21)} {
		if err := CheckText("zone", bad, 20); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestAHostIsNotCalledLikeAnother: a name that reads like an id would be taken for the
// host that has it.
func TestAHostIsNotCalledLikeAnother(t *testing.T) {
	for name, good := range map[string]bool{
		"01M8E10EW67TT3JRT73WZDA3B4": false, "01m8e10ew67tt3jrt73wzda3b4": false,
		"01M8E10EW67TT3JRT73WZDA3B4.example": true, "web-1": true, "abcdefghijklmnopqrstuvwxyz": true,
	} {
		if err := CheckHostWord(name, "", "", nil); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("a..b")
	f.Fuzz(func(t *testing.T, s string) {
		if Check("revision", s) == nil && (strings.ContainsAny(s, "/\\\x00\x1b\n ,:=|*?") || s[0] == '-' ||
			s[0] == '.') {
			t.Errorf("%q is taken for a name", s)
		}
	})
}
