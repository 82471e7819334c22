package spec

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/groundswell/groundswell/deploy"
)

// Bounds of a selector: it is asked of every host at every change.
const (
	maxSelector = 4096
	maxCost     = 100_000
)

// Selector is a compiled CEL expression over a host. name, zone and region are
// the host's own; every other identifier, such as role or env, is the label of
// that key, and labels["any-key"] is any label. A label that a host does not
// have is "". It may be used concurrently.
type Selector struct {
	text string
	prog cel.Program
}

// Compile checks a selector. It must be an expression that is true or false.
func Compile(text string) (*Selector, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errorf(`the selector is empty; write for instance role == "web" && env == "prod", or true for every host`)
	}
	if len(text) > maxSelector {
		return nil, errorf("the selector has %d bytes, at most %d are read; select by a label of its own", len(text),
			maxSelector)
	}
	env, err := cel.NewEnv(cel.ClearMacros(), cel.Macros(cel.AllMacro, cel.ExistsMacro),
		cel.Variable("labels", cel.MapType(cel.StringType, cel.StringType)))
	if err != nil {
		return nil, fmt.Errorf("prepare selectors: %w", err)
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, problem(text, issues)
	}
	if env, err = env.Extend(variables(parsed)...); err != nil {
		return nil, fmt.Errorf("prepare selector %q: %w", text, err)
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, problem(text, issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, errorf("the selector %s is %s, not true or false; compare it, as in role == \"web\"", text,
			checked.OutputType())
	}
	prog, err := env.Program(checked, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("compile selector %q: %w", text, err)
	}
	return &Selector{text: text, prog: prog}, nil
}

// problem makes one sentence of what CEL says.
func problem(text string, issues *cel.Issues) error {
	e := issues.Errors()[0]
	message, _, _ := strings.Cut(e.Message, "\n")
	message = plain(strings.ReplaceAll(message, " (in container '')", ""))
	where := ""
	if l := e.Location; l != nil && l.Column() >= 0 && !strings.Contains(text, "\n") {
		where = fmt.Sprintf(" at character %d", l.Column()+1)
	}
	return errorf("the selector does not compile%s: %s", where, message)
}

// plain says in words what CEL's parser says of its tokens.
func plain(message string) string {
	syntax, isSyntax := strings.CutPrefix(message, "Syntax error: ")
	if !isSyntax {
		return message
	}
	token, unknown := strings.CutPrefix(syntax, "token recognition error at: ")
	if rest, ok := strings.CutPrefix(syntax, "mismatched input "); ok && strings.HasSuffix(syntax, "expecting <EOF>") {
		token, unknown = strings.TrimSuffix(rest, " expecting <EOF>"), true
	}
	if !unknown {
		return strings.NewReplacer("'<EOF>'", "the end", "<EOF>", "the end").Replace(syntax)
	}
	token = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(token, "'"), "'"))
	switch {
	case strings.HasPrefix(token, "="):
		return "compare with ==, as in role == \"web\""
	case strings.HasPrefix(token, "&"), strings.HasPrefix(token, "|"), token == "and", token == "or":
		return "join conditions with && or ||"
	case strings.HasPrefix(token, `"`), strings.HasPrefix(token, "'"):
		return "the quote that begins here has no end"
	}
	return token + " means nothing here"
}

// variables declares every name that an expression uses as a label.
func variables(parsed *cel.Ast) []cel.EnvOption {
	used, bound := map[string]bool{}, map[string]bool{"labels": true}
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			used[e.AsIdent()] = true
		case ast.ComprehensionKind:
			bound[e.AsComprehension().IterVar()] = true
			bound[e.AsComprehension().AccuVar()] = true
		}
	}))
	var out []cel.EnvOption
	for name := range used {
		if !bound[name] {
			out = append(out, cel.Variable(name, cel.StringType))
		}
	}
	return out
}

// String returns the selector as written.
func (s *Selector) String() string { return s.text }

// Match reports whether a host is selected. An expression that cannot be
// evaluated for a host, for instance by a division by zero, does not select it.
func (s *Selector) Match(h *deploy.Host) bool {
	out, _, err := s.prog.Eval(host{h})
	return err == nil && out == types.True
}

// host answers the variables of an expression; it is a cel.Activation.
type host struct{ *deploy.Host }

// ResolveName returns the value of a variable.
func (h host) ResolveName(name string) (any, bool) {
	switch name {
	case "name":
		return h.Name, true
	case "zone":
		return h.Zone, true
	case "region":
		return h.Region, true
	case "labels":
		return labels{types.NewStringStringMap(types.DefaultTypeAdapter, h.Labels), h.Labels}, true
	}
	return h.Labels[name], true
}

// Parent returns nil: there is no outer scope.
func (h host) Parent() cel.Activation { return nil }

// labels is a map in which what is missing is "".
type labels struct {
	traits.Mapper
	all map[string]string
}

// Find returns a label.
func (l labels) Find(key ref.Val) (ref.Val, bool) {
	k, ok := key.(types.String)
	return types.String(l.all[string(k)]), ok
}

// Get returns a label.
func (l labels) Get(key ref.Val) ref.Val {
	v, _ := l.Find(key)
	return v
}

// uses returns the names of the labels that the selector asks for by name, in
// order, for messages.
func uses(text string) []string {
	env, err := cel.NewEnv()
	if err != nil {
		return nil
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil
	}
	var out []string
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && !slices.Contains(out, e.AsIdent()) {
			out = append(out, e.AsIdent())
		}
	}))
	slices.Sort(out)
	return out
}
