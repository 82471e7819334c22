package coordinator

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/internal/identity"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestADamagedCoordinatorOfThree: one whose log or snapshot was changed on disk
// does not start, and says what to do; the others go on, and it comes back that way.
func TestADamagedCoordinatorOfThree(t *testing.T) {
	nodes, admin := three(t)
	const reason = "the stock is counted"
	freeze := func() {
		t.Helper()
		if _, err := admin.SetFreeze(t.Context(), &controlv1.SetFreezeRequest{
			Mutation: &controlv1.Mutation{Reason: reason},
		}); err != nil {
			t.Fatal(err)
		}
	}
	freeze()
	third := nodes[2]
	third.stop()
	path := filepath.Join(third.dir, "raft", "raft.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(data, []byte(reason), []byte("the stock is counteD"))
	if bytes.Equal(changed, data) {
		t.Fatal("the log does not hold the reason in words")
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	err = refused(t, Options{Name: "c3", Dir: third.dir})
	if err == nil {
		t.Fatal("a word was changed throughout the log, and the coordinator serves it")
	}
	for _, want := range []string{path, "entry ", "checksum", "dctl cluster remove", "join again with a token"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q: %v", want, err)
		}
	}
	freeze() // the others go on

	if _, err := admin.RemoveCoordinator(t.Context(), &controlv1.RemoveCoordinatorRequest{
		Name: "c3", Mutation: &controlv1.Mutation{Reason: "its disk changed what was written"},
	}); err != nil {
		t.Fatal(err)
	}
	token, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
	if err != nil {
		t.Fatal(err)
	}
	start(t, Options{
		Name: "c3", Dir: t.TempDir(), Join: []string{nodes[0].addr.API},
		Token: func() (identity.Token, error) { return identity.ParseToken(token.Token) },
	})
	eventually(t, "three vote again", func() bool {
		voters := 0
		for _, m := range status(t, admin).Coordinators {
			if m.Voter {
				voters++
			}
		}
		return voters == 3
	})
}
