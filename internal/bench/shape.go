package bench

import (
	"fmt"
	"strings"
)

// Shape says how hosts are parted among applications, and into waves.
type Shape struct {
	Hosts     int
	HostsEach int // hosts of an application; the last ones may have fewer
	Waves     int
}

// Apps is how many applications there are.
func (s Shape) Apps() int { return (s.Hosts + s.HostsEach - 1) / s.HostsEach }

// Slot is the label that selects the hosts of an application.
func (s Shape) Slot(host int) string { return slot(host / s.HostsEach) }

func slot(app int) string { return fmt.Sprintf("s%05d", app) }

func appName(app int) string { return fmt.Sprintf("bench-%05d", app) }

// YAML is the deploy.yaml of an application: waves of equal size, all hosts of a
// wave at once, no bake.
func (s Shape) YAML(app int) string {
	var waves []string
	for i := range s.Waves - 1 {
		waves = append(waves, fmt.Sprintf("{name: w%d, select: {percent: %d%%}}", i+1, max(1, 100/s.Waves)))
	}
	waves = append(waves, "{name: rest, select: remainder}")
	return fmt.Sprintf(`app: %s
artifacts: file:///var/empty
groups:
  all:
    select: slot == %q
    config:
      capacity: {minHealthy: 0, maxConcurrent: 100%%}
      waves: [%s]
`, appName(app), slot(app), strings.Join(waves, ", "))
}
