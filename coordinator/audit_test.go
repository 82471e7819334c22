package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// register makes a request that is recorded.
func register(t testing.TB, c controlv1.ControlServiceClient, name string) {
	t.Helper()
	_, err := c.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
		App: "www", Name: name, Digest: "sha256:" + strings.Repeat("a", 64),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lines reads the exported files of an epoch, each of which has to fit.
func lines(t *testing.T, dir string, epoch int) (out []audit.Record) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "audit", fmt.Sprintf("%04d-*.jsonl", epoch)))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		h, records, _, err := audit.ReadLines(f)
		_ = f.Close()
		if err == nil {
			err = audit.Verify(h.Before, records)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		out = append(out, records...)
	}
	return out
}

// spent is the CPU time of this process.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func audits(t *testing.T, c controlv1.ControlServiceClient) {
	t.Helper()
	eventually(t, "requests are recorded", func() bool { return status(t, c).Rules >= state.AuditRules })
}

// TestARestoredBackupCutsTheChain: the cluster's goes on from the backup, with a record of
// the new epoch; what was recorded after the backup stays in the files of the epoch before.
func TestARestoredBackupCutsTheChain(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	audits(t, admin)
	register(t, admin, "v1")
	file := backup(t, admin)
	register(t, admin, "lost")
	n.stop()
	before := lines(t, n.dir, 1)
	if len(before) == 0 || !strings.Contains(before[len(before)-1].What, "name=lost") {
		t.Fatalf("what came last is not exported: %v", before)
	}
	if err := os.RemoveAll(filepath.Join(n.dir, "raft")); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(n.dir, "c1", file, "drill", 2); err != nil {
		t.Fatal(err)
	}
	again := start(t, Options{Name: "c1", Dir: n.dir})
	again.addr.Operator = n.addr.Operator
	_, admin = operator(t, again)
	register(t, admin, "after")
	again.stop()
	kept, after := lines(t, n.dir, 1), lines(t, n.dir, 2)
	if len(kept) != len(before) {
		t.Errorf("the file of before has %d records, it had %d", len(kept), len(before))
	}
	cut := -1
	for i, r := range after {
		if r.Verb == "epoch" {
			cut = i
		}
	}
	switch {
	case cut < 1 || cut != len(after)-2:
		t.Fatalf("the records of the new life: %v", after)
	case after[cut].Seq != before[len(before)-1].Seq || bytes.Equal(after[cut].Sum, before[len(before)-1].Sum):
		t.Errorf("record %d of epoch 1 is %v, of epoch 2 %v", after[cut].Seq, before[len(before)-1], after[cut])
	case !bytes.Equal(after[cut-1].Sum, before[len(before)-2].Sum):
		t.Errorf("they do not agree about record %d", after[cut-1].Seq)
	case !strings.Contains(after[cut].What, fmt.Sprintf("behind record %d", after[cut-1].Seq)):
		t.Errorf("the new epoch does not say where it begins: %s", after[cut].What)
	}
}

// TestAuditFilesAreResumed: at every byte at which a crash can end the last file it is cut
// to whole lines and gone on with; a changed file is left as it is, and another one begun.
func TestAuditFilesAreResumed(t *testing.T) {
	l := &audit.Log{}
	for i := range 6 {
		l.Add(audit.Record{Index: uint64(i), Asked: audit.Asked{Actor: "operator/ann", Outcome: audit.OK}})
	}
	fill := func(dir string, upto int) (f *auditFiles) {
		f, err := openAuditFiles(dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		before, records := l.After(f.last.Seq, upto-int(f.last.Seq))
		if len(records) > 0 {
			err = f.append("c", before, records)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	dir := t.TempDir()
	f := fill(dir, 3)
	name := f.file.Name()
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(text) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "audit"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "audit", filepath.Base(name)), text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fill(filepath.Join(dir, "audit"), 6).close(); err != nil {
			t.Fatal(err)
		}
		if got := lines(t, dir, 1); len(got) != 6 || !bytes.Equal(got[5].Sum, l.Head) {
			t.Fatalf("cut at %d: %d records", cut, len(got))
		}
	}
	damaged := bytes.Replace(text, []byte(`"seq":2`), []byte(`"seq":x`), 1)
	if err := os.WriteFile(name, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	f = fill(dir, 6)
	defer f.close() //nolint:errcheck // it was synced
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, damaged) || f.damaged == nil || f.file.Name() == name {
		t.Errorf("a damaged file is touched, or gone on with: %v, %v", f.damaged, err)
	}
}

// TestEveryRequestInWords: every mutating call writes every field that is set down, none of
// them in a way that could be another one.
func TestEveryRequestInWords(t *testing.T) {
	ctx := rpc.WithCaller(t.Context(), identity.Peer{Role: identity.Operator, ID: "ann"})
	a := newAsking(ctx, "/x/SetHostAttributes", &controlv1.SetHostAttributesRequest{
		Mutation: &controlv1.Mutation{RequestId: "1", Reason: "why"}, Host: "web 1 approved=7",
		Attributes: &controlv1.Attributes{Name: "a", Labels: map[string]string{"role": "web,db=1", "b": ""}},
	}, nil)
	want := `SetHostAttributes host="web 1 approved=7" attributes={name=a labels=b:"",role:"web,db=1"}`
	if a.What != want || a.Actor != "operator/ann" || a.Request != "1" || a.Reason != "why" {
		t.Errorf("%s by %s: %s", a.What, a.Actor, want)
	}
	b := newAsking(ctx, "/x/ApplyApp", &controlv1.ApplyAppRequest{Source: []byte("secret"), Filename: "f"}, nil)
	if strings.Contains(b.What, "secret") || !strings.Contains(b.What, "source=sha256:") || !b.file {
		t.Error(b.What)
	}
}

// BenchmarkRequests measures what a request that changes something costs a coordinator that
// is alone, call and disk included, below the level at which it is recorded, and at it. Run
// it with -benchtime 1500x: more is more than one person may ask at once.
func BenchmarkRequests(b *testing.B) {
	for _, level := range []int{state.AuditRules - 1, state.AuditRules} {
		b.Run(fmt.Sprint("level", level), func(b *testing.B) { requests(b, level) })
	}
}

func requests(b *testing.B, level int) {
	dir := b.TempDir()
	ready := make(chan Addresses, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	o := Options{
		Name: "c1", Dir: dir, Bootstrap: true, Rules: level, API: "127.0.0.1:0", Agents: "127.0.0.1:0", Raft: "127.0.0.1:0",
		Gossip: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Ready: func(a Addresses) { ready <- a },
	}
	go func() { done <- Run(ctx, o) }()
	a := <-ready
	cred, err := identity.Load(a.Operator)
	if err != nil {
		b.Fatal(err)
	}
	cc, err := rpc.Dial([]string{a.API}, cred.Client())
	if err != nil {
		b.Fatal(err)
	}
	api := controlv1.NewControlServiceClient(cc)
	for is := int32(0); is < int32(level); {
		s, err := api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
		if err != nil {
			b.Fatal(err)
		}
		is = s.Rules
	}
	cpu := spent(b)
	n := 0
	for b.Loop() {
		n++
		_, err := api.SetFreeze(ctx, &controlv1.SetFreezeRequest{Mutation: &controlv1.Mutation{
			RequestId: fmt.Sprint("r", n), Reason: "a reason of some length, as people give it",
		}})
		if rpc.Kind(err) == rpc.KindTooMany {
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((spent(b)-cpu).Microseconds())/float64(n), "cpu-µs/op")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
