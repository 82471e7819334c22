package gates

import (
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// TestWindow asks at moments around the switches of the clocks: in Rome they go
// from 02:00 to 03:00 on 2026-03-29 and from 03:00 back to 02:00 on 2026-10-25,
// both at 01:00 UTC.
func TestWindow(t *testing.T) {
	const rome = " Europe/Rome"
	for _, c := range []struct{ window, at, want string }{
		{"Mon-Thu 09:00-16:00" + rome, "2026-11-23T08:00:00Z", "open"},
		{"Mon-Thu 09:00-16:00" + rome, "2026-11-23T07:59:59Z", "opens Mon 2026-11-23 09:00 CET"},
		{"Mon-Thu 09:00-16:00" + rome, "2026-11-26T15:00:00Z", "opens Mon 2026-11-30 09:00 CET"},
		{"Mon-Thu 09:00-16:00" + rome, "2026-07-06T07:00:00Z", "open"}, // summer: an hour earlier in UTC
		{"Mon-Thu 09:00-16:00" + rome, "2026-07-06T06:59:00Z", "opens Mon 2026-07-06 09:00 CEST"},
		{"Mon-Thu 09:00-16:00, Fri 09:00-12:00" + rome, "2026-11-27T10:59:00Z", "open"},
		{"Mon-Thu 09:00-16:00, Fri 09:00-12:00" + rome, "2026-11-27T11:00:00Z", "opens Mon 2026-11-30 09:00 CET"},
		{"Mon 09:00-10:00 UTC, Mon 09:00-10:00 Asia/Tokyo", "2026-11-23T00:30:00Z", "open"},
		{"Mon 09:00-10:00 UTC, Mon 09:00-10:00 Asia/Tokyo", "2026-11-23T01:00:00Z", "opens Mon 2026-11-23 09:00 UTC"},
		{"daily 22:00-04:00 UTC", "2026-11-23T03:59:00Z", "open"},
		{"daily 22:00-04:00 UTC", "2026-11-23T04:00:00Z", "opens Mon 2026-11-23 22:00 UTC"},

		// Spring: 02:00-02:59 does not happen.
		{"Sun 01:00-02:30" + rome, "2026-03-29T00:59:00Z", "open"},
		{"Sun 01:00-02:30" + rome, "2026-03-29T01:00:00Z", "opens Sun 2026-04-05 01:00 CEST"},
		{"Sun 02:15-02:45" + rome, "2026-03-28T12:00:00Z", "opens Sun 2026-04-05 02:15 CEST"},
		{"Sun 02:30-05:00" + rome, "2026-03-29T00:59:00Z", "opens Sun 2026-03-29 03:00 CEST"},
		{"Sun 02:30-05:00" + rome, "2026-03-29T02:59:00Z", "open"},
		{"Sun 02:30-05:00" + rome, "2026-03-29T03:00:00Z", "opens Sun 2026-04-05 02:30 CEST"},
		{"Sat 23:00-03:30" + rome, "2026-03-29T01:29:00Z", "open"},
		{"Sat 23:00-03:30" + rome, "2026-03-29T01:30:00Z", "opens Sat 2026-04-04 23:00 CEST"},

		// Autumn: 02:00-02:59 happens twice.
		{"Sun 02:15-02:45" + rome, "2026-10-25T00:15:00Z", "open"},
		{"Sun 02:15-02:45" + rome, "2026-10-25T00:45:00Z", "opens Sun 2026-10-25 02:15 CET"},
		{"Sun 02:15-02:45" + rome, "2026-10-25T01:15:00Z", "open"},
		{"Sun 02:15-02:45" + rome, "2026-10-25T01:45:00Z", "opens Sun 2026-11-01 02:15 CET"},
		{"Sun 01:00-04:00" + rome, "2026-10-25T02:59:00Z", "open"},
		{"Sun 01:00-04:00" + rome, "2026-10-25T03:00:00Z", "opens Sun 2026-11-01 01:00 CET"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		out := deploy.Observation{Answer: deploy.VerdictInconclusive}
		if err := window(c.window, at, &out); err != nil {
			t.Fatal(err)
		}
		got := out.Detail
		if out.Answer == deploy.VerdictPass {
			got = "open"
		}
		if got != c.want || out.Threshold != c.window {
			t.Errorf("%s at %s: %q, want %q (%+v)", c.window, c.at, got, c.want, out)
		}
	}
}

func TestWindowOfAnUnknownZone(t *testing.T) {
	o := observer(t, Options{})
	got := o.ask(t.Context(), &deploy.Question{Gate: deploy.Gate{Window: "daily 00:00-24:00 Mars/Olympus"}})
	if got.Answer != deploy.VerdictInconclusive || got.Detail == "" {
		t.Errorf("%+v", got)
	}
}
