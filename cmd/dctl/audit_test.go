package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/coordinator/audit"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// auditOf makes a chain of n records behind another one.
func auditOf(behind *audit.Log, n int, actor string) *audit.Log {
	l := &audit.Log{}
	if behind != nil {
		*l = *behind
		l.Records = slices.Clone(behind.Records)
	}
	for i := range n {
		l.Add(audit.Record{Index: uint64(i), At: int64(i), Asked: audit.Asked{
			Actor: actor, Verb: "deploy", App: "www", What: fmt.Sprint("CreateDeployment revision=v", i), Outcome: audit.OK,
		}})
	}
	return l
}

// exported writes records as a coordinator does.
func exported(t *testing.T, epoch uint64, before audit.Sum, records []audit.Record) string {
	t.Helper()
	var out bytes.Buffer
	w := json.NewEncoder(&out)
	_ = w.Encode(audit.Header{Format: audit.FormatLines, Cluster: "c", Epoch: epoch, Before: before})
	for _, r := range records {
		_ = w.Encode(r)
	}
	name := filepath.Join(t.TempDir(), fmt.Sprintf("%04d-%012d.jsonl", epoch, records[0].Seq))
	if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// ListAudit answers by pages of three.
func (f *fake) ListAudit(_ context.Context, r *controlv1.ListAuditRequest) (*controlv1.ListAuditResponse, error) {
	out := &controlv1.ListAuditResponse{Coordinator: "c1", Head: f.audit.Seq, HeadSum: f.audit.Head.String()}
	if len(f.audit.Records) > 0 {
		out.Kept = f.audit.Records[0].Seq
	}
	for i, rec := range slices.Backward(f.audit.Records) {
		if r.Before != 0 && rec.Seq >= r.Before || r.Actor != "" && r.Actor != rec.Actor {
			continue
		}
		if len(out.Records) == 3 || r.PageSize > 0 && len(out.Records) == int(r.PageSize) {
			out.Next = out.Records[len(out.Records)-1].Seq
			break
		}
		out.Records = append(out.Records, &controlv1.AuditRecord{
			Seq: rec.Seq, Index: rec.Index, AtMs: rec.At, Actor: rec.Actor, Verb: rec.Verb, App: rec.App, What: rec.What,
			Reason: rec.Reason, Outcome: rec.Outcome, Times: rec.Times, Said: rec.Said, Sum: rec.Sum.String(),
		})
		if out.BeforeSum = f.audit.Before.String(); i > 0 {
			out.BeforeSum = f.audit.Records[i-1].Sum.String()
		}
	}
	return out, nil
}

// TestAuditVerify: what was changed, cut or taken back is found and named, in the cluster
// and in files.
func TestAuditVerify(t *testing.T) {
	life := auditOf(nil, 30, "operator/ann")
	kept := *life // the cluster has the newest ten
	kept.Before, kept.Records = life.Records[19].Sum, life.Records[20:]
	old := exported(t, 1, nil, life.Records[:12])
	young := exported(t, 1, life.Records[11].Sum, life.Records[12:25])

	lost := auditOf(life, 5, "operator/mallory") // and then a backup was restored
	again := auditOf(life, 3, "coordinator/c1")
	taken := exported(t, 1, life.Records[24].Sum, lost.Records[25:])
	anew := exported(t, 2, life.Records[19].Sum, again.Records[20:])

	flipped := slices.Clone(kept.Records)
	flipped[4].Reason = "another one"
	cut := kept
	cut.Records = kept.Records[:9]

	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	head := func(l *audit.Log) string { return fmt.Sprintf("%d:%s", l.Seq, l.Head) }
	for _, c := range []struct {
		name  string
		audit audit.Log
		args  []string
		code  int
		want  string
	}{
		{"what is kept", kept, nil, 0, "records 1 to 20 were not read"},
		{"kept and files", kept, []string{young, old}, 0, "records 1 to 30 fit, head " + head(life)},
		{"a file is missing", kept, []string{old}, 1, "records 13 to 20 are missing between"},
		{"a record was changed", audit.Log{
			Seq: 30, Head: life.Head, Before: kept.Before, Records: flipped,
		}, nil, 1, "record 25 (operator/ann deploy at index 24) does not fit"},
		{"the newest was cut off", cut, nil, 1, "its newest record is 29, its head 30:"},
		{"an old head", kept, []string{"--head", head(life)}, 0, "fit"},
		{
			"the head of another chain", kept,
			[]string{"--head", head(auditOf(nil, 30, "operator/eve"))},
			1,
			"record 30 is another one than when its head was kept",
		},
		{"a head that is no more", kept, []string{"--head", head(lost)}, 1, "record 35, whose head was kept, is not there"},
		{"no head", kept, []string{"--head", "30:ab"}, 2, "NUMBER:SUM"},
		{
			"a restored backup", *again,
			[]string{old, young, taken},
			0,
			"records 31 to 35 of " + taken + " are of the time that it took back",
		},
		{
			"a restored backup, files alone", kept,
			[]string{"--offline", taken, anew, young, old},
			0,
			"records 1 to 33 fit, head " + head(again),
		},
		{
			"two of one epoch", kept,
			[]string{"--offline", old, young, taken, exported(t, 1, life.Head, again.Records[30:])},
			1,
			"record 31 is another one in",
		},
		{"nothing", audit.Log{}, nil, 1, "nothing to verify"},
	} {
		f.audit = c.audit
		got := cl.call(append([]string{"audit", "verify"}, c.args...)...)
		if got.code != c.code || !strings.Contains(got.out+got.err, c.want) {
			t.Errorf("%s: code %d, want %d and %q:\n%s%s", c.name, got.code, c.code, c.want, got.out, got.err)
		}
	}

	f.audit = *life
	text, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	for at := bytes.IndexByte(text, '\n') + 2; at < len(text)-2; at += 7 {
		bad := bytes.Clone(text)
		bad[at] ^= 4
		name := filepath.Join(t.TempDir(), "flipped.jsonl")
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, records, _, err := audit.ReadLines(bytes.NewReader(bad))
		if err == nil && len(records) == 12 && fmt.Sprint(records) == fmt.Sprint(life.Records[:12]) {
			continue // another spelling of the same
		}
		if got := cl.call("audit", "verify", name); got.code != 1 || !strings.Contains(got.err, name) {
			t.Errorf("byte %d: code %d\n%s%s", at, got.code, got.out, got.err)
		}
	}
}

// TestAuditLists: pages are joined, the newest are shown last, and no text breaks a line.
func TestAuditLists(t *testing.T) {
	f := &fake{audit: *auditOf(nil, 10, "operator/ann")}
	f.audit.Records[9].Reason = "two\nlines\x1b[2J"
	cl := newCluster(t)
	cl.context(cl.serve(f))
	got := cl.call("audit", "--limit", "5")
	rows := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.code != 0 || len(rows) != 6 || !strings.HasPrefix(rows[1], "6 ") || !strings.HasPrefix(rows[5], "10 ") ||
		strings.Contains(got.out, "\x1b") || !strings.Contains(got.err, "--limit 0") {
		t.Errorf("%d rows, code %d:\n%s%s", len(rows), got.code, got.out, got.err)
	}
	if got := cl.call("audit", "--limit", "0", "-o", "jsonl"); strings.Count(got.out, "\n") != 10 {
		t.Errorf("as lines: %s%s", got.out, got.err)
	}
	if got := cl.call("audit", "head"); got.out != fmt.Sprintf("10:%s\n", f.audit.Head) {
		t.Errorf("head: %+v", got)
	}
	if got := cl.call("audit", "--actor", "nobody"); got.code != 0 {
		t.Errorf("of nobody: %+v", got)
	}
}
