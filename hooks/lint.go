package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Severity tells a finding that a host would stumble over from one that only
// deserves a look.
type Severity uint8

// The severities of Lint.
const (
	SeverityWarning Severity = iota + 1
	SeverityError
)

// String is the severity in lower case.
func (s Severity) String() string {
	if s == SeverityError {
		return "error"
	}
	return "warning"
}

// Finding is one line of Lint.
type Finding struct {
	Problem
	Severity Severity
}

// Lint checks the revision unpacked in dir without running anything: the
// appspec, that each script is there, has its run bit, no CRLF and a shebang
// that names an interpreter, and that each source is there. It changes nothing.
func Lint(dir, stated string) []Finding {
	spec, err := Load(dir, stated)
	if err != nil {
		return loadFindings(err)
	}
	l := &linter{dir: dir, file: spec.Filename}
	for _, w := range append(spec.Warnings, spec.Notices()...) {
		l.findings = append(l.findings, Finding{w, SeverityWarning})
	}
	for i, f := range spec.Files {
		if _, err := os.Stat(filepath.Join(dir, f.Source)); err != nil {
			l.add(SeverityError, f.Pos, fmt.Sprintf("files[%d].source", i),
				fmt.Sprintf("%q is not in the revision", f.Source))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Hooks)) {
		l.event(name, spec.Hooks[name])
	}
	return l.findings
}

func loadFindings(err error) []Finding {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return []Finding{{Problem{File: "appspec.yml", Text: err.Error()}, SeverityError}}
	}
	var all []Finding
	for _, p := range invalid.Problems {
		all = append(all, Finding{p, SeverityError})
	}
	return all
}

type linter struct {
	dir, file string
	findings  []Finding
}

func (l *linter) add(s Severity, pos Position, field, text string) {
	l.findings = append(l.findings, Finding{Problem{l.file, pos, field, text}, s})
}

func (l *linter) event(name string, scripts []Script) {
	e, known := ParseEvent(name)
	for i, s := range scripts {
		field := fmt.Sprintf("hooks.%s[%d]", name, i)
		switch {
		case !known:
			near := didYouMean(name, EventNames())
			l.add(SeverityWarning, s.Pos, field, "no lifecycle event has this name"+near+": the script never runs")
		case !e.Scriptable():
			l.add(SeverityWarning, s.Pos, field, "the agent does this event itself: the script never runs")
		}
		l.script(s, field+".location")
	}
}

func (l *linter) script(s Script, field string) {
	file, err := scriptPath(l.dir, s.Location)
	if err != nil {
		l.add(SeverityError, s.Pos, field, err.Error())
		return
	}
	if st, err := os.Stat(file); err == nil && st.Mode()&0o111 == 0 {
		l.add(SeverityWarning, s.Pos, field, fmt.Sprintf("%s has no run bit: the agent sets it", s.Location))
	}
	line, err := firstLine(file)
	if err != nil {
		l.add(SeverityError, s.Pos, field, err.Error())
		return
	}
	l.shebang(s, field, line)
}

func (l *linter) shebang(s Script, field string, line []byte) {
	if bytes.HasPrefix(line, []byte("\x7fELF")) {
		return
	}
	interpreter, isShebang := bytes.CutPrefix(line, []byte("#!"))
	words := strings.Fields(string(interpreter))
	switch {
	case bytes.HasSuffix(line, []byte("\r")):
		l.add(SeverityError, s.Pos, field, fmt.Sprintf("%s has CRLF line ends: the kernel looks for an interpreter "+
			"whose name ends in a carriage return", s.Location))
	case !isShebang:
		l.add(SeverityWarning, s.Pos, field, fmt.Sprintf("%s has no #! line: /bin/sh runs it", s.Location))
	case len(words) == 0 || !path.IsAbs(words[0]):
		l.add(SeverityError, s.Pos, field, fmt.Sprintf("%s names no interpreter by its full path in its #! line",
			s.Location))
	default:
		if _, err := exec.LookPath(words[0]); err != nil {
			l.add(SeverityWarning, s.Pos, field,
				fmt.Sprintf("interpreter %s of %s is not on this machine", words[0], s.Location))
		}
	}
}

// firstLine reads at most what the kernel reads of a #! line (256 bytes).
func firstLine(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open script: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return line, nil
}
