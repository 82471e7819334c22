package spec

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	match "github.com/prometheus/prometheus/model/labels"
	promql "github.com/prometheus/prometheus/promql/parser"

	"github.com/groundswell/groundswell/deploy"
)

// sample stands for what a template is filled with. Each text is as long as its
// field with the braces, so that positions in the query are those of the file.
var sample = deploy.Fields{
	App: "App00000", Group: "Group00000", Wave: "Wave00000", Zone: "Zone00000", Host: "Host00000",
	Revision: "Revision00000", Base: "Base00000", Hosts: []string{"Hosts0"},
}

// readQuery parses a template as Prometheus does, with experimental functions,
// which a server may have. An error of the template itself is left to
// deploy.Config.Validate: nil, nil.
func readQuery(template string) (promql.Expr, error) {
	text, err := deploy.Expand(template, sample)
	if err != nil {
		return nil, nil //nolint:nilerr // told elsewhere, once
	}
	expr, err := promql.NewParser(promql.Options{EnableExperimentalFunctions: true}).ParseExpr(text)
	var list promql.ParseErrors
	if errors.As(err, &list) && len(list) > 0 {
		return nil, errorf("is no PromQL at %s: %w", list[0].PositionRange.StartPosInput(text, 0), list[0].Err)
	}
	if err != nil {
		return nil, errorf("is no PromQL: %w", err)
	}
	return expr, nil
}

// lookBack is how far behind the moment of asking a query looks: its longest
// range, with the subqueries and offsets around it.
func lookBack(expr promql.Expr) time.Duration {
	longest := time.Duration(0)
	promql.Inspect(expr, func(node promql.Node, path []promql.Node) error {
		vector, ok := node.(*promql.VectorSelector)
		if !ok {
			return nil
		}
		reach := vector.OriginalOffset + recordedRange(vector.Name)
		for _, outer := range path {
			switch outer := outer.(type) {
			case *promql.MatrixSelector:
				reach += outer.Range
			case *promql.SubqueryExpr:
				reach += outer.Range + outer.OriginalOffset
			}
		}
		longest = max(longest, reach)
		return nil
	})
	return longest
}

// recorded is the name of a recording rule by Prometheus's convention,
// level:metric:operations, whose operations end in their range: errors:rate5m.
var recorded = regexp.MustCompile(`:[a-z_]+([0-9]+(?:ms|[smhdwy]))$`)

func recordedRange(name string) time.Duration {
	m := recorded.FindStringSubmatch(name)
	if m == nil {
		return 0
	}
	d, err := model.ParseDuration(m[1])
	if err != nil {
		return 0
	}
	return time.Duration(d)
}

// unknownRange names a recorded series whose range nobody can read, or "".
func unknownRange(expr promql.Expr) string {
	name := ""
	promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
		if v, ok := node.(*promql.VectorSelector); ok && strings.Contains(v.Name, ":") && recordedRange(v.Name) == 0 {
			name = v.Name
		}
		return nil
	})
	return name
}

// hostLabelOf is the label that a query compares with the names of hosts, as in
// {host="{{.Host}}"}, or "".
func hostLabelOf(expr promql.Expr) string {
	for _, selector := range promql.ExtractSelectors(expr) {
		for _, m := range selector {
			if m.Type != match.MatchEqual && m.Type != match.MatchRegexp {
				continue
			}
			for _, name := range []string{sample.Host, "(?:" + sample.Hosts[0] + ")"} {
				if rest, ok := strings.CutPrefix(m.Value, name); ok &&
					(rest == "" || strings.HasPrefix(strings.TrimLeft(rest, "(?"), ":")) {
					return m.Name
				}
			}
		}
	}
	return ""
}

// carries reports whether the series that an expression gives may have a label:
// whether no aggregation or matching on the way drops it.
func carries(expr promql.Expr, label string) bool {
	switch e := expr.(type) {
	case *promql.VectorSelector, *promql.MatrixSelector:
		return true
	case *promql.SubqueryExpr:
		return carries(e.Expr, label)
	case *promql.ParenExpr:
		return carries(e.Expr, label)
	case *promql.UnaryExpr:
		return carries(e.Expr, label)
	case *promql.AggregateExpr:
		if slices.Contains([]promql.ItemType{promql.TOPK, promql.BOTTOMK, promql.LIMITK, promql.LIMIT_RATIO}, e.Op) {
			return carries(e.Expr, label) // they choose series and change none
		}
		return slices.Contains(e.Grouping, label) != e.Without && carries(e.Expr, label)
	case *promql.BinaryExpr:
		return binaryCarries(e, label)
	case *promql.Call:
		return callCarries(e, label)
	}
	return false // a number
}

func binaryCarries(e *promql.BinaryExpr, label string) bool {
	left, right, by := carries(e.LHS, label), carries(e.RHS, label), e.VectorMatching
	switch {
	case by == nil || e.Op == promql.LOR: // one side is a number, or either gives series
		return left || right
	case by.Card == promql.CardManyToMany: // and, unless
		return left
	case by.Card == promql.CardManyToOne:
		return left || right && slices.Contains(by.Include, label)
	case by.Card == promql.CardOneToMany:
		return right || left && slices.Contains(by.Include, label)
	}
	return left && slices.Contains(by.MatchingLabels, label) == by.On
}

func callCarries(e *promql.Call, label string) bool {
	switch e.Func.Name {
	case "absent", "absent_over_time", "scalar":
		return false
	case "label_replace", "label_join":
		if to, ok := e.Args[1].(*promql.StringLiteral); ok && to.Val == label {
			return true
		}
	}
	return slices.ContainsFunc(e.Args, func(arg promql.Expr) bool { return carries(arg, label) })
}
