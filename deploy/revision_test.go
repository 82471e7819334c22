package deploy_test

import (
	"testing"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// TestWhatIsNeededStays: through every scenario, nothing that somebody runs, is to run
// or would go back to could be pruned, nor what a rollback would bring or take back.
func TestWhatIsNeededStays(t *testing.T) {
	looked := 0
	for _, f := range scenarios(t) {
		s := sim.NewSession(1)
		s.World.Each = func() {
			st := s.World.State
			for _, g := range st.Groups {
				needed := st.Needed(g.App)
				need := func(what string, d deploy.Digest) {
					if looked++; d != "" && needed[d] == "" {
						t.Fatalf("%s, entry %d: %s could be pruned: %s", f, st.Index, d, what)
					}
				}
				for _, h := range g.Hosts() {
					target := st.Target(h, g.App)
					need(h+" runs it", target.Running)
					need(h+" goes back to it", st.LastGood(target))
					need(h+" should run it", st.Wants(target).Revision)
				}
				if u, err := st.Undoable(g); err == nil {
					need("a rollback brings it", u.Revision)
				}
				for _, d := range st.Sealed(g) {
					need("people may go back to it", d)
				}
			}
		}
		scenario(t, f, s)
	}
	if looked < 10_000 {
		t.Errorf("only %d were looked at", looked)
	}
}
