package coordinator

import (
	"testing"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Every coordinator writes a snapshot, asked twice as well; one that is off is
// named.
func TestSnapshotsOnRequest(t *testing.T) {
	nodes, admin := three(t)
	for range 2 {
		out, err := admin.Snapshot(t.Context(), &controlv1.SnapshotRequest{})
		if err != nil || len(out.Coordinators) != 3 {
			t.Fatalf("%v, %v", out, err)
		}
		for _, m := range out.Coordinators {
			if m.Index == 0 || m.Bytes == 0 || m.Error != "" {
				t.Errorf("%v", m)
			}
		}
	}
	nodes[2].stop()
	out, err := admin.Snapshot(t.Context(), &controlv1.SnapshotRequest{})
	if err != nil || len(out.Coordinators) != 3 {
		t.Fatalf("%v, %v", out, err)
	}
	if last := out.Coordinators[2]; last.Name != "c3" || last.Error == "" || out.Coordinators[0].Error != "" {
		t.Errorf("with c3 off: %v", out)
	}
}
