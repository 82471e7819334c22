package deploy_test

import (
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

func TestParseWindow(t *testing.T) {
	parts, err := deploy.ParseWindow("Mon-Thu 09:00-16:00, Fri Sun 22:30-04:00 Europe/Rome, Sat-Mon 00:00-24:00 UTC")
	if err != nil || len(parts) != 3 || parts[0].Zone != "Europe/Rome" || parts[1].Zone != "Europe/Rome" ||
		parts[2].Zone != "UTC" {
		t.Fatalf("%+v, %v", parts, err)
	}
	for _, c := range []struct {
		part   int
		day    time.Weekday
		minute int
		want   bool
	}{
		{0, time.Monday, 9*60 - 1, false},
		{0, time.Monday, 9 * 60, true},
		{0, time.Thursday, 16*60 - 1, true},
		{0, time.Thursday, 16 * 60, false},
		{0, time.Friday, 10 * 60, false},
		{1, time.Friday, 22*60 + 29, false},
		{1, time.Friday, 22*60 + 30, true},
		{1, time.Saturday, 4*60 - 1, true}, // Friday's night
		{1, time.Saturday, 4 * 60, false},
		{1, time.Saturday, 23 * 60, false},
		{1, time.Friday, 60, false}, // Thursday's night
		{1, time.Monday, 60, true},  // Sunday's
		{2, time.Saturday, 0, true},
		{2, time.Sunday, 24*60 - 1, true},
		{2, time.Monday, 12 * 60, true},
		{2, time.Tuesday, 0, false},
	} {
		if got := parts[c.part].Open(c.day, c.minute); got != c.want {
			t.Errorf("part %d on %s at %02d:%02d: %v", c.part, c.day, c.minute/60, c.minute%60, got)
		}
	}
	for _, text := range []string{
		"", ",", "Mon", "09:00-16:00 UTC", "Mon 09:00-16:00", "Mon 09:00 UTC", "Mon 09:00-09:00 UTC", "mon 09:00-10:00 UTC",
		"Mon-Foo 09:00-10:00 UTC", "Mon 24:00-10:00 UTC", "Mon 09:60-10:00 UTC", "Mon +9:00-10:00 UTC", "Mon 09:00-24:01 UTC",
		"Mon 09:00-10:00 UTC now", "Mon 09:00-10:00 UTC, Tue 09:00-10:00",
	} {
		if parts, err := deploy.ParseWindow(text); err == nil {
			t.Errorf("%q is read as %+v", text, parts)
		}
	}
}
