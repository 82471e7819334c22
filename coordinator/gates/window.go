package gates

import (
	"fmt"
	"time"
	_ "time/tzdata" // coordinators run where no time zones are installed

	"github.com/groundswell/groundswell/deploy"
)

// searched is how far ahead an opening is looked for: the clocks may skip the
// window of one week.
const searched = 15 * 24 * time.Hour

// window answers pass while a window is open.
func window(text string, now time.Time, out *deploy.Observation) error {
	out.Question, out.Threshold = text, text
	parts, err := readWindow(text)
	if err != nil {
		return err
	}
	out.Value = now.In(parts[0].place).Format("Mon 2006-01-02 15:04 MST")
	if isOpen(parts, now) {
		out.Answer = deploy.VerdictPass
		return nil
	}
	out.Detail = fmt.Sprintf("closed, and does not open within %d days", searched/(24*time.Hour))
	minute := now.Truncate(time.Minute)
	for at := minute.Add(time.Minute); at.Before(minute.Add(searched)); at = at.Add(time.Minute) {
		if isOpen(parts, at) {
			out.Detail = "opens " + at.In(parts[0].place).Format("Mon 2006-01-02 15:04 MST")
			break
		}
	}
	return nil
}

type placedPart struct {
	deploy.WindowPart
	place *time.Location
}

func readWindow(text string) ([]placedPart, error) {
	parts, err := deploy.ParseWindow(text)
	if err != nil {
		return nil, err
	}
	var out []placedPart
	for _, p := range parts {
		place, err := time.LoadLocation(p.Zone)
		if err != nil {
			return nil, fmt.Errorf("find time zone %q: %w", p.Zone, err)
		}
		out = append(out, placedPart{p, place})
	}
	return out, nil
}

func isOpen(parts []placedPart, at time.Time) bool {
	for i := range parts {
		local := at.In(parts[i].place)
		if parts[i].Open(local.Weekday(), local.Hour()*60+local.Minute()) {
			return true
		}
	}
	return false
}
