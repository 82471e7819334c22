package bench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGrowthIsToldForTheLastTenth(t *testing.T) {
	curve := []sample{{0, 0}, {time.Second, 90}, {2 * time.Second, 100}, {3 * time.Second, 300}}
	got := rates(curve, 300)
	want := []JoinRate{{At: 100, Rate: 10}, {At: 300, Rate: 200}}
	for i := range want {
		if i >= len(got) || got[i].At != want[i].At || got[i].Rate < want[i].Rate*0.99 ||
			got[i].Rate > want[i].Rate*1.01 {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestGapsAreBetweenWavesThatFollowEachOther(t *testing.T) {
	done := []Done{{Host: 0, Began: 10, Ended: 20}, {Host: 1, Began: 11, Ended: 40}, {Host: 2, Began: 70, Ended: 80}}
	got := between(done, map[int]int{0: 0, 1: 0, 2: 1})
	if !slices.Equal(got, []time.Duration{30 * time.Microsecond}) {
		t.Errorf("got %v", got)
	}
}

func TestTimes(t *testing.T) {
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(200-i)*time.Second)
	}
	if got := *times(all); got != (Times{N: 200, P50: 101, P99: 199, Max: 200}) {
		t.Errorf("got %+v", got)
	}
	if times(nil) != nil {
		t.Error("nothing was measured, and there are figures")
	}
}

func TestHostsOfACoordinatorThatGoesSpreadOverTheOthers(t *testing.T) {
	w := &Worker{o: WorkerOptions{Coordinators: []string{"a", "b", "c"}}}
	first, second := map[string]int{}, map[string]int{}
	for i := range 3000 {
		h := &host{w: w, i: i}
		at := h.coordinator()
		first[at]++
		if at == "a" {
			h.place++
			second[h.coordinator()]++
		}
	}
	if first["a"] != 1000 || first["b"] != 1000 || second["b"] != 500 || second["c"] != 500 {
		t.Errorf("first %v, then %v", first, second)
	}
}

func TestEveryHostHasAnApplicationAndAnAddress(t *testing.T) {
	s := Shape{Hosts: 25, HostsEach: 10, Waves: 3}
	if s.Apps() != 3 || s.Slot(24) != slot(2) || !strings.Contains(s.YAML(2), `slot == "s00002"`) {
		t.Errorf("%d applications, host 24 in %s:\n%s", s.Apps(), s.Slot(24), s.YAML(2))
	}
	seen := map[string]bool{}
	for i := range 60_000 {
		seen[(&host{i: i}).source().String()] = true
	}
	if len(seen) != 60_000 {
		t.Errorf("60,000 hosts have %d addresses", len(seen))
	}
}
