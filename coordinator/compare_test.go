package coordinator

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestAReplicaThatDiffers applies one fact otherwise than the others: it ends with
// the reason and does not start again, the others go on.
func TestAReplicaThatDiffers(t *testing.T) {
	const beat = 200 * time.Millisecond
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true, Heartbeat: beat})
	_, admin := operator(t, first)
	joins := func(o Options) Options {
		t.Helper()
		out, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
		if err != nil {
			t.Fatal(err)
		}
		o.Dir, o.Join, o.Heartbeat = t.TempDir(), []string{first.addr.API}, beat
		o.Token = func() (identity.Token, error) { return identity.ParseToken(out.Token) }
		return o
	}
	start(t, joins(Options{Name: "c2"}))

	o := joins(Options{
		Name: "c3", API: "127.0.0.1:0", Agents: "127.0.0.1:0", Raft: "127.0.0.1:0", Gossip: "127.0.0.1:0",
	})
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	o.tamper = func(s *state.Store) {
		s.View(func(st *deploy.State) { // before raft has it
			st.Amend = func(_ *deploy.State, e deploy.Event) (handled bool, err error) {
				if _, handled = e.(deploy.FreezeSet); handled {
					err = &deploy.Refusal{Reason: deploy.Invalid, Text: "a bit in memory is another one"}
				}
				return handled, err
			}
		})
	}
	ready := make(chan struct{})
	o.Ready = func(Addresses) { close(ready) }
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}

	freeze := func() error { // fails while somebody is elected
		_, err := admin.SetFreeze(t.Context(), &controlv1.SetFreezeRequest{
			Mutation: &controlv1.Mutation{Reason: "stock-taking"},
		})
		return err
	}
	var err error
	for over := false; !over; {
		select {
		case err = <-ended:
			over = true
		default:
			_ = freeze()
		}
	}
	for _, want := range []string{"the state of c3 became another one", "dctl cluster remove c3", "join again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
	eventually(t, "the others go on", func() bool { return freeze() == nil })
	if again := refused(t, Options{Name: "c3", Dir: o.Dir}); again == nil || again.Error() != err.Error() {
		t.Errorf("it starts again: %v", again)
	}
}
