package spec

import (
	"strings"
	"testing"
)

// A selector that does not parse is answered in words, not in a parser's.
func TestSelectorInWords(t *testing.T) {
	for text, want := range map[string]string{
		`role = "web"`:              "compare with ==",
		`role === "web"`:            "compare with ==",
		`role == "web`:              "the quote that begins here has no end",
		`role == 'web`:              "the quote that begins here has no end",
		`role == "web" & x == "y"`:  "join conditions with && or ||",
		`role == "web" $ x`:         "$ means nothing here",
		`(role == "a"`:              "missing ')' at the end",
		`role == "a" || `:           "the end",
		`role == "web" and x == ""`: "join conditions with && or ||",
	} {
		_, err := Compile(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
			continue
		}
		for _, bad := range []string{"token recognition", "Syntax error", "<EOF>"} {
			if strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}
