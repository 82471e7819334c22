package gates

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// testPresence: nothing passes while a host that the question is about is not in
// the answer, and the evidence names it.
func testPresence(t *testing.T, o *Observer, began time.Time) {
	const busy = `busy{host=~"{{.Hosts}}"}` // quiet has none
	for what, c := range map[string]struct {
		gate   deploy.QueryGate
		hosts  string
		want   deploy.Verdict
		detail string
	}{
		"all there": {deploy.QueryGate{Query: busy, HostLabel: "host"}, "good-1 good-2 good-3", "pass", ""},
		"one of three": {
			deploy.QueryGate{Query: busy, HostLabel: "host"},
			"good-1 good-2 quiet", "inconclusive",
			"1 of 3 hosts are not in the answer by their label host: quiet",
		},
		"by instance": {deploy.QueryGate{Query: busy}, "good-1 good-2", "pass", ""},
		"one, by instance": {
			deploy.QueryGate{Query: busy},
			"good-1 quiet", "inconclusive",
			"by their label instance: quiet",
		},
		"in an expression": {deploy.QueryGate{Query: busy + " * 1"}, "good-1 quiet", "inconclusive", ": quiet"},
		"by host": {
			deploy.QueryGate{Query: "max by (host) (" + busy + ")", HostLabel: "host"},
			"quiet bad",
			"inconclusive", ": quiet",
		},
		"whom nobody knows": {
			deploy.QueryGate{Query: busy, HostLabel: "node"},
			"good-1", "inconclusive",
			"by their label node: good-1",
		},
		"many": {
			deploy.QueryGate{Query: "busy"},
			"good-1 a b c d e f g", "inconclusive",
			"7 of 8 hosts are not in the answer by their label instance: a, b, c, d, e and 2 more",
		},
		"an aggregate": {
			deploy.QueryGate{Query: "avg(" + busy + ")"},
			"good-1 quiet", "pass",
			"an aggregate does not say which hosts are in it",
		},
		"of one host": {deploy.QueryGate{Query: "avg(" + busy + ")"}, "good-1", "pass", ""},
		"presence": {
			deploy.QueryGate{Query: "avg(" + busy + ")", Presence: busy},
			"good-1 good-2",
			"pass", "",
		},
		"presence, missing": {
			deploy.QueryGate{Query: "avg(" + busy + ")", Presence: busy},
			"good-1 quiet",
			"inconclusive", ": quiet",
		},
		"presence by label": {deploy.QueryGate{
			Query: "avg(" + busy + ")", Presence: "group by (host) (" + busy + ")",
			HostLabel: "host",
		}, "good-1 quiet", "inconclusive", "label host: quiet"},
		"presence of none": {
			deploy.QueryGate{Query: "avg(" + busy + ")", Presence: "sum(busy)"},
			"good-1",
			"inconclusive", ": good-1",
		},
		"broken presence": {
			deploy.QueryGate{Query: "avg(" + busy + ")", Presence: "sum("},
			"good-1", "inconclusive",
			"presence: query: bad_data",
		},
		// One host's own value is evidence, whoever is missing; an aggregate over half of them is none.
		"bad and missing": {deploy.QueryGate{Query: `errors:rate1m`, Max: "0.1"}, "bad gone", "fail", ": gone"},
		"bad aggregate": {
			deploy.QueryGate{Query: `max(errors:rate1m)`, Max: "0.1", Presence: "up"},
			"bad gone",
			"inconclusive", ": gone",
		},
	} {
		if c.gate.Max == "" {
			c.gate.Max = "1"
		}
		q := questionAbout(deploy.Gate{Query: &c.gate}, began)
		q.Candidates = strings.Fields(c.hosts)
		got := deploy.Observation{}
		until(t, what, func() string { // an expression is sampled every 15 seconds
			if got = o.ask(t.Context(), q); got.Few {
				return got.Detail
			}
			return ""
		})
		if got.Answer != c.want || got.From < q.Since || c.detail == "" && got.Detail != "" ||
			!strings.Contains(got.Detail, c.detail) {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// testFew: the host that was sampled least says how many samples there are, and
// the want of them is no gap.
func testFew(t *testing.T, o *Observer) {
	q := questionAbout(deploy.Gate{
		Query: &deploy.QueryGate{Query: `errors:rate1m{host=~"{{.Hosts}}"}`, Max: "0.01"}, MinSamples: 3,
	}, time.Now())
	q.Candidates = []string{"good-1", "slow"}
	few := 0
	until(t, "slow is scraped three times", func() string {
		got := o.ask(t.Context(), q)
		switch {
		case got.Answer == deploy.VerdictPass && !got.Few && got.Samples == 3:
			return ""
		case got.Answer != deploy.VerdictInconclusive || !got.Few || got.Samples > 2:
			t.Fatalf("with too few samples: %+v", got)
		}
		few++
		return fmt.Sprintf("%+v", got)
	})
	if few == 0 {
		t.Error("there were never too few samples")
	}
	q.Candidates, q.Since = []string{"good-1", "slow", "gone"}, time.Now().UnixMilli()
	if got := o.ask(t.Context(), q); got.Few || !strings.Contains(got.Detail, ": gone") {
		t.Errorf("few samples and a missing host: %+v", got)
	}
}

// testLooksBack: no answer rests on what was before the start, and none claims to.
func testLooksBack(t *testing.T, o *Observer) {
	g := deploy.Gate{Query: &deploy.QueryGate{Query: `errors:rate1m{host="good-1"}`, Max: "0.01", Window: time.Hour}}
	q := questionAbout(g, time.Now().Add(-time.Minute))
	if got := o.ask(t.Context(), q); got.Answer != deploy.VerdictInconclusive || got.Few ||
		!strings.Contains(got.Detail, "looks back 1h0m0s") {
		t.Errorf("a window that begins before the wave: %+v", got)
	}
	q.Candidates = nil // before a wave there is nothing to wait for
	if got := o.ask(t.Context(), q); got.Answer != deploy.VerdictPass {
		t.Errorf("before a wave: %+v", got)
	}
	ahead := time.Now().Add(time.Hour)
	for _, g := range []deploy.Gate{
		g,
		{Compare: &deploy.CompareGate{Metric: "m", Test: deploy.TestSPRT}},
		{Webhook: "http://127.0.0.1:9/"},
	} {
		got := o.ask(t.Context(), questionAbout(g, ahead))
		if got.Answer != deploy.VerdictInconclusive || got.From != ahead.UnixMilli() || got.To != got.From ||
			!strings.Contains(got.Detail, "clock") {
			t.Errorf("%s, with a clock that is behind: %+v", g.Kind(), got)
		}
	}
}

// testComparedPresence: a comparison does not pass without every host that it is
// about; what the others did badly is bad all the same.
func testComparedPresence(t *testing.T, o *Observer, began time.Time) {
	for _, c := range []struct {
		test, hosts string
		want        deploy.Verdict
	}{
		{deploy.TestSPRT, "good-1", "pass"},
		{deploy.TestSPRT, "good-1 gone", "inconclusive"},
		{deploy.TestSPRT, "bad gone", "fail"},
		{deploy.TestMannWhitney, "good-1", "pass"},
		{deploy.TestMannWhitney, "good-1 gone", "inconclusive"},
		{deploy.TestMannWhitney, "bad gone", "fail"},
	} {
		q := questionAbout(deploy.Gate{Compare: &deploy.CompareGate{Metric: "m", Test: c.test}}, began)
		q.Candidates = strings.Fields(c.hosts)
		missing := slices.Contains(q.Candidates, "gone")
		until(t, c.test+" "+c.hosts, func() string {
			got := o.ask(t.Context(), q)
			if got.Answer == c.want && !got.Few &&
				missing == strings.Contains(got.Detail, "by their label host: gone") {
				return ""
			}
			return fmt.Sprintf("%+v", got)
		})
	}
}

// TestPartialAnswers: what Prometheus warns about is never more than
// inconclusive, wherever the warning comes from; hints about names are none.
func TestPartialAnswers(t *testing.T) {
	warned, warning := "", ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told := "[]"
		if strings.Contains(r.FormValue("query"), warned) {
			told = fmt.Sprintf("[%q]", warning)
		}
		kind, point := "vector", `"value":[0,"1"]`
		if strings.HasSuffix(r.URL.Path, "query_range") {
			kind, point = "matrix", `"values":[[0,"1"]]`
		}
		fmt.Fprintf(w, `{"status":"success","warnings":%s,"data":{"resultType":%q,"result":[{"metric":{"instance":"good-1:1"},%s}]}}`,
			told, kind, point)
	}))
	defer server.Close()
	o := observer(t, Options{Prometheus: server.URL})
	for _, c := range []struct {
		gate    deploy.Gate
		warned  string
		warning string
		want    deploy.Verdict
	}{
		{
			deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "1"}},
			"up",
			"PromQL info: metric might not be a counter", "pass",
		},
		{
			deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "1"}},
			"up", "store 7: deadline exceeded",
			"inconclusive",
		},
		{
			deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "0"}},
			"up", "store 7: deadline exceeded",
			"inconclusive",
		},
		{
			deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "1"}},
			"count_over_time", "store 7: deadline exceeded",
			"inconclusive",
		},
		{
			deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "1", Presence: "there"}},
			"there",
			"store 7: deadline exceeded", "inconclusive",
		},
		{
			deploy.Gate{Compare: &deploy.CompareGate{Metric: "m", Test: deploy.TestSPRT}},
			"errors_total",
			"store 7: deadline exceeded", "inconclusive",
		},
		{
			deploy.Gate{Compare: &deploy.CompareGate{Metric: "m", Test: deploy.TestMannWhitney}},
			"latency",
			"store 7: deadline exceeded", "inconclusive",
		},
	} {
		warned, warning = c.warned, c.warning
		got := o.ask(t.Context(), questionAbout(c.gate, time.Now().Add(-time.Minute)))
		told := strings.Contains(got.Detail, "Prometheus warns: store 7: deadline exceeded")
		if got.Answer != c.want || told != (c.want != deploy.VerdictPass) || got.Few {
			t.Errorf("%s of %s: %+v", c.warning, c.warned, got)
		}
	}
}

func TestAbsent(t *testing.T) {
	p := present{label: "host", of: 3, missing: []string{"a"}}
	if got := p.text(); got != "1 of 3 hosts are not in the answer by their label host: a" {
		t.Error(got)
	}
	if got := (present{of: 3}).text(); got != "" {
		t.Error(got)
	}
}
