package spec

import (
	"testing"
	"time"
)

// TestReadQuery: how far back queries look, by which label they name hosts, and
// whether the label "host" is still there in their answers.
func TestReadQuery(t *testing.T) {
	const minute = time.Minute
	for query, want := range map[string]struct {
		back    time.Duration
		label   string
		carries bool
	}{
		`up`:                              {0, "", true},
		`up offset 5m`:                    {5 * minute, "", true},
		`up offset -5m`:                   {0, "", true},
		`rate(x[5m])`:                     {5 * minute, "", true},
		`rate(x[5m] offset 1h)`:           {65 * minute, "", true},
		`max_over_time(rate(x[5m])[1h:])`: {65 * minute, "", true},
		`max_over_time(rate(x[5m])[1h:1m] offset 10m)`: {75 * minute, "", true},
		`rate(x[5m]) / rate(y[10m])`:                   {10 * minute, "", true},
		`errors:rate5m`:                                {5 * minute, "", true},
		`zone:errors_requests:ratio_rate1h`:            {time.Hour, "", true},
		`max_over_time(errors:rate5m[10m])`:            {15 * minute, "", true},
		`latency:p99`:                                  {0, "", true},
		`rate5m`:                                       {0, "", true},
		`up{host="{{.Host}}"}`:                         {0, "host", true},
		`up{node=~"{{.Hosts}}"}`:                       {0, "node", true},
		`up{instance=~"{{.Hosts}}:9100"}`:              {0, "instance", true},
		`up{instance=~"{{.Hosts}}(:.*)?"}`:             {0, "instance", true},
		`up{host!="{{.Host}}"}`:                        {0, "", true},
		`up{pod=~"www-{{.Host}}-.*"}`:                  {0, "", true},
		`up{host="{{.Zone}}"}`:                         {0, "", true},
		`sum(up)`:                                      {0, "", false},
		`sum by (host) (up)`:                           {0, "", true},
		`sum by (zone) (up)`:                           {0, "", false},
		`sum without (zone) (up)`:                      {0, "", true},
		`sum without (host) (up)`:                      {0, "", false},
		`sum by (host) (sum(up))`:                      {0, "", false},
		`topk(3, up)`:                                  {0, "", true},
		`topk(3, sum(up))`:                             {0, "", false},
		`count_values by (host) ("v", up)`:             {0, "", true},
		`-up`:                                          {0, "", true},
		`(up) * 2`:                                     {0, "", true},
		`2 * sum(up)`:                                  {0, "", false},
		`1 + 1`:                                        {0, "", false},
		`scalar(up)`:                                   {0, "", false},
		`vector(1)`:                                    {0, "", false},
		`absent(up{host="a"})`:                         {0, "", false},
		`a / b`:                                        {0, "", true},
		`a / on (host) b`:                              {0, "", true},
		`a / on (zone) b`:                              {0, "", false},
		`a / ignoring (code) b`:                        {0, "", true},
		`a / ignoring (host) b`:                        {0, "", false},
		`a / on (zone) group_left sum by (zone) (b)`:   {0, "", true},
		`sum by (zone) (a) / on (zone) group_right () b`:                         {0, "", true},
		`sum(a) by (zone) / on (zone) group_right (host) sum(b) by (zone, code)`: {0, "", false},
		`sum(a) by (zone, code) / on (zone) group_left (host) b`:                 {0, "", true},
		`sum(a) or up`:          {0, "", true},
		`sum(a) and on () up`:   {0, "", false},
		`up unless on (host) a`: {0, "", true},
		`histogram_quantile(0.9, sum by (le) (rate(x[1m])))`:                         {minute, "", false},
		`histogram_quantile(0.9, sum by (le, host) (rate(x[1m])))`:                   {minute, "", true},
		`label_replace(sum by (instance) (up), "host", "$1", "instance", "(.*):.*")`: {0, "", true},
		`label_join(sum by (instance) (up), "node", "-", "instance")`:                {0, "", false},
	} {
		expr, err := readQuery(query)
		if err != nil || expr == nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if got := lookBack(expr); got != want.back {
			t.Errorf("%s looks back %s, want %s", query, got, want.back)
		}
		if got := hostLabelOf(expr); got != want.label {
			t.Errorf("%s names hosts by %q, want %q", query, got, want.label)
		}
		if got := carries(expr, "host"); got != want.carries {
			t.Errorf("%s carries host: %t", query, got)
		}
	}
	if expr, err := readQuery(`up{host="{{.Host"}`); expr != nil || err != nil {
		t.Errorf("a template that is wrong: %v, %v", expr, err)
	}
}

// TestSampleKeepsPositions: a template and what is parsed of it are as long.
func TestSampleKeepsPositions(t *testing.T) {
	for field, value := range map[string]string{
		"App": sample.App, "Group": sample.Group, "Wave": sample.Wave, "Zone": sample.Zone, "Host": sample.Host,
		"Revision": sample.Revision, "Base": sample.Base, "Hosts": "(?:" + sample.Hosts[0] + ")",
	} {
		if len(value) != len("{{."+field+"}}") {
			t.Errorf("%s: %q", field, value)
		}
	}
}
