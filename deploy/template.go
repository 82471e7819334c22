package deploy

import (
	"fmt"
	"slices"
	"strings"
)

// Fields are what a query template may name, as in {host="{{.Host}}"}.
type Fields struct {
	App, Group, Wave, Zone, Host string
	Revision, Base               string
	Hosts                        []string // names; a regular expression that matches exactly these
}

// fieldNames are the names of Fields.
var fieldNames = []string{"App", "Group", "Wave", "Zone", "Host", "Revision", "Base", "Hosts"}

func (f *Fields) value(name string) []string {
	switch name {
	case "App":
		return []string{f.App}
	case "Group":
		return []string{f.Group}
	case "Wave":
		return []string{f.Wave}
	case "Zone":
		return []string{f.Zone}
	case "Host":
		return []string{f.Host}
	case "Revision":
		return []string{f.Revision}
	case "Base":
		return []string{f.Base}
	}
	return f.Hosts
}

// Expand puts the fields into a query. A value stays inside the quotes that it
// is written in, whatever it holds, and in a regular expression it matches
// itself and nothing else.
func Expand(query string, f Fields) (string, error) {
	var out strings.Builder
	err := walkTemplate(query, func(literal, field string, regular bool) {
		out.WriteString(literal)
		if field == "" {
			return
		}
		values := f.value(field)
		if regular {
			values = eachText(values, quoteRegular)
		}
		text := strings.Join(values, "|")
		if field == "Hosts" {
			text = "(?:" + text + ")"
		}
		out.WriteString(quoteText(text))
	})
	return out.String(), err
}

// TemplateFields returns the fields that a query names. A template must parse,
// name known fields only, and hold each inside quotes.
func TemplateFields(query string) ([]string, error) {
	var names []string
	err := walkTemplate(query, func(_, field string, _ bool) {
		if field != "" && !slices.Contains(names, field) {
			names = append(names, field)
		}
	})
	return names, err
}

// walkTemplate emits the literal texts of a template, each with the field that
// follows it. A field is regular when it lies in the pattern of =~ or !~.
func walkTemplate(text string, emit func(literal, field string, regular bool)) error {
	var quote byte // that is open, 0 for none
	regular := false
	begin := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.HasPrefix(text[i:], "{{"):
			name, rest, ok := strings.Cut(text[i+2:], "}}")
			if !ok {
				return fmt.Errorf("%q is not closed; write for instance {host=\"{{.Host}}\"}", text[i:])
			}
			field, err := fieldIn(name, quote, regular)
			if err != nil {
				return err
			}
			emit(text[begin:i], field, regular)
			begin = len(text) - len(rest)
			i = begin - 1
		case quote == 0 && (c == '"' || c == '\'' || c == '`'):
			quote = c
			regular = strings.HasSuffix(strings.TrimRight(text[:i], " \t\n"), "~")
		case c == quote:
			quote = 0
		case c == '\\' && quote != 0 && quote != '`':
			i++
		}
	}
	emit(text[begin:], "", false)
	return nil
}

// fieldIn reads what stands between the braces.
func fieldIn(text string, quote byte, regular bool) (string, error) {
	field := strings.TrimPrefix(strings.TrimSpace(text), ".")
	switch {
	case !slices.Contains(fieldNames, field):
		return "", fmt.Errorf("{{%s}} names no field; known are {{.%s}}", text, strings.Join(fieldNames, "}}, {{."))
	case quote != '"' && quote != '\'':
		return "", fmt.Errorf("{{%s}} stands outside of quotes; write for instance {host=\"{{.Host}}\"}", text)
	case field == "Hosts" && !regular:
		return "", fmt.Errorf("{{%s}} is a regular expression; write for instance {host=~\"{{.Hosts}}\"}", text)
	}
	return field, nil
}

func eachText(in []string, f func(string) string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, f(s))
	}
	return out
}

// quoteRegular makes a regular expression that matches the text alone.
func quoteRegular(text string) string {
	var out strings.Builder
	for _, r := range text {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, r) {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// quoteText makes the inside of a quoted PromQL text.
func quoteText(text string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`, "\n", `\n`, "\r", `\r`).Replace(text)
}
