package deploy

import (
	"fmt"
	"testing"
)

// TestAnOlderWordChangesNothing: a replica that has not read of a person's word
// yet records what was before it.
func TestAnOlderWordChangesNothing(t *testing.T) {
	s := NewState()
	enrol := func(zone string, approved uint64) error {
		return s.ApplyEntry(s.Index+1, Entry{Events: []Event{
			HostEnrolled{Host: "h", Name: "h", Zone: zone, Approved: approved},
		}})[0]
	}
	for _, x := range []struct {
		zone     string
		approved uint64
		is       string
		refused  bool
	}{{"a", 0, "a", false}, {"b", 0, "b", false}, {"c", 1, "c", false}, {"a", 0, "c", true}, {"d", 2, "d", false}} {
		if err := enrol(x.zone, x.approved); (err != nil) != x.refused || s.Hosts["h"].Zone != x.is {
			t.Errorf("after %+v the zone is %s, %v", x, s.Hosts["h"].Zone, err)
		}
	}
}

func TestDifferences(t *testing.T) {
	a := Attributes{Name: "n", Zone: "a", Labels: map[string]string{"role": "web", "gone": "1", "same": ""}}
	b := Attributes{Name: "n", Zone: "b", Region: "r", Labels: map[string]string{"role": "db", "new": "2", "same": ""}}
	want := `[zone "b" instead of "a" region "r" instead of "" no label gone=1 label new=2 label role=db instead of web]`
	if got := fmt.Sprint(a.Differences(b)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !a.Equal(a) || !(Attributes{Labels: map[string]string{}}).Equal(Attributes{}) {
		t.Error("what says the same differs")
	}
}
