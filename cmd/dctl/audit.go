package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/internal/config"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

func (c *cli) auditCommand() *cobra.Command {
	req, since, limit := &controlv1.ListAuditRequest{}, config.Duration(0), 50
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who asked for what, and what came of it", Args: upTo(0),
		Long: `Show who asked for what, from where, why, and what came of it, oldest first. Refused
requests are counted: a record stands for those of one person and verb. Who has the
right to read the audit of an application sees its records; those of none, such as
of hosts and tokens, are for who has it on every one.

The newest 10,000 records are in the cluster. All of them are in files on the
coordinators, DIR/audit/*.jsonl; ` + "`dctl audit verify`" + ` reads these too.`,
		Example: `dctl audit --since 24h
dctl audit --app www --verb emergency
dctl audit --actor ann --limit 0 -o jsonl > ann.jsonl`,
	}
	f := cmd.Flags()
	f.Var(&since, "since", "only those of so long, as 24h or 7d")
	f.StringVar(&req.Actor, "actor", "", "only those of somebody: a name, or operator/NAME, agent/ID")
	f.StringVar(&req.App, "app", "", "only those of an application")
	f.StringVar(&req.Verb, "verb", "", "only those that asked for a right, as deploy, cordon or emergency; or enrol")
	f.IntVar(&limit, "limit", limit, "at most so many, the newest; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usage("--limit %d: give a number, or 0 for all", limit)
		}
		if since > 0 {
			req.SinceMs = time.Now().Add(-time.Duration(since)).UnixMilli()
		}
		return c.with(func(cl *client) error {
			out, err := allAudit(cmd.Context(), cl, req, limit)
			if err != nil {
				return err
			}
			return c.showAudit(out)
		})
	}
	cmd.AddCommand(c.auditVerifyCommand(), c.auditHeadCommand())
	return cmd
}

// allAudit lists records page by page, oldest first in the end. What it says of the head
// is from the first page, of what is before it from the last.
func allAudit(
	ctx context.Context, cl *client, req *controlv1.ListAuditRequest, limit int,
) (*controlv1.ListAuditResponse, error) {
	page := proto.CloneOf(req)
	var all *controlv1.ListAuditResponse
	for {
		if limit > 0 {
			page.PageSize = int32(limit)
			if all != nil {
				page.PageSize = int32(limit - len(all.Records))
			}
		}
		out, err := call(ctx, cl, controlv1.ControlServiceClient.ListAudit, page)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = out
		} else {
			all.Records, all.BeforeSum = append(all.Records, out.Records...), out.BeforeSum
		}
		page.Before = out.Next
		if all.Next = out.Next; out.Next == 0 || limit > 0 && len(all.Records) >= limit {
			slices.Reverse(all.Records)
			return all, nil
		}
	}
}

func (c *cli) showAudit(out *controlv1.ListAuditResponse) error {
	if c.flags.output == outputJSONL {
		for _, r := range out.Records {
			if err := c.emit(r); err != nil {
				return err
			}
		}
		return nil
	}
	return c.show(out, func(w io.Writer) {
		var rows []string
		for _, r := range out.Records {
			what := r.What
			if r.Times > 1 {
				what = fmt.Sprintf("%d×, of which the first: %s", r.Times, what)
			}
			outcome := r.Outcome
			if r.Said != "" {
				outcome += ": " + r.Said
			}
			rows = append(rows, output.Cells(r.Seq, output.Moment(r.AtMs), r.Actor, output.Dash(r.Address), r.Verb, what,
				output.Dash(r.Reason), outcome))
		}
		// a broken pipe ends the program anyway
		_ = output.Table(w, "NO\tAT\tACTOR\tFROM\tVERB\tWHAT\tREASON\tOUTCOME", rows)
		if out.Next != 0 {
			fmt.Fprintf(c.err, "there are older ones: --limit 0 shows all\n")
		}
	})
}

func (c *cli) auditHeadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "head", Short: "Show the head of the audit's chain", Args: upTo(0),
		Long: `Show the number and the sum of the newest record, as NUMBER:SUM. It stands for every
record before it: keep it where the cluster's administrators cannot write, and give
it to ` + "`dctl audit verify --head`" + ` later.`,
		Example: "dctl audit head >> /mnt/write-once/groundswell-heads",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(func(cl *client) error {
				out, err := allAudit(cmd.Context(), cl, &controlv1.ListAuditRequest{}, 1)
				if err != nil {
					return err
				}
				if out.HeadSum == "" && len(out.Records) > 0 {
					return &exitError{code: exitAuth, text: "the head is for who may read the whole audit, and you may read a " +
						"part; see `dctl access explain audit`"}
				}
				out.Records, out.Next, out.BeforeSum = nil, 0, ""
				return c.show(out, func(w io.Writer) { fmt.Fprintf(w, "%d:%s\n", out.Head, out.HeadSum) })
			})
		},
	}
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var heads []string
	cmd := &cobra.Command{
		Use: "verify [FILE...]", Short: "Recompute the audit's chain", Args: fromTo(0, 10_000),
		Long: `Recompute the chain of what the cluster has of the audit, and of exported files
(DIR/audit/*.jsonl of a coordinator), and name the first record that does not fit.
Files and cluster must agree where both have a record, and have nothing missing
between them. With --head also that the chain holds a head of before. Exit code 1: it
does not fit. After a restored backup the records of the lost time are in files
alone: it says so, and where the chain was cut.

With --offline only the files are read, and nobody is asked.`,
		Example: `dctl audit verify
dctl audit verify --head 4711:9f86d081884c7d65 /var/lib/dcoord/audit/*.jsonl`,
	}
	offline := false
	cmd.Flags().StringSliceVar(&heads, "head", nil, "NUMBER:SUM that `dctl audit head` has shown, or the beginning of SUM")
	cmd.Flags().BoolVar(&offline, "offline", false, "verify files alone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var read []stretch
		for _, file := range args {
			one, err := readStretch(file)
			if err != nil {
				return err
			}
			read = append(read, one)
		}
		v := &chain{links: map[uint64]link{}}
		if !offline {
			err := c.with(func(cl *client) error {
				out, err := allAudit(cmd.Context(), cl, &controlv1.ListAuditRequest{}, 0)
				if err != nil {
					return err
				}
				kept, err := v.cluster(out)
				read = append(read, kept)
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := v.join(read); err != nil {
			return err
		}
		for _, head := range heads {
			if err := v.holds(head); err != nil {
				return err
			}
		}
		return v.report(c)
	}
	return cmd
}

// stretch is records that follow each other and fit, as they were read in one place.
type stretch struct {
	where   string
	epoch   uint64 // latest is the cluster's own
	before  audit.Sum
	records []audit.Record
}

const latest = math.MaxUint64

// chain is what was read of an audit, by the numbers of records.
type chain struct {
	links map[uint64]link
	cuts  []string // what is missing, or was cut, in words
}

// link is the sum of a record, and where it was read.
type link struct {
	sum   audit.Sum
	where string
	epoch uint64
}

func wrong(format string, args ...any) error {
	return &exitError{code: exitOther, text: fmt.Sprintf(format, args...)}
}

func readStretch(name string) (out stretch, err error) {
	f, err := os.Open(name)
	if err != nil {
		return out, usage("read exported records: %v", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	h, records, _, err := audit.ReadLines(f)
	if err == nil {
		err = audit.Verify(h.Before, records)
	}
	if err != nil {
		return out, wrong("%s: %v", name, err)
	}
	return stretch{name, h.Epoch, h.Before, records}, nil
}

// cluster checks what a coordinator answered.
func (v *chain) cluster(out *controlv1.ListAuditResponse) (is stretch, err error) {
	if len(out.Records) == 0 {
		return is, nil
	}
	where := "coordinator " + out.Coordinator
	if out.HeadSum == "" {
		return is, &exitError{code: exitAuth, text: "the chain is for who may read the whole audit, and you may read a " +
			"part; see `dctl access explain audit`"}
	}
	var before, head audit.Sum
	records := make([]audit.Record, len(out.Records))
	err = before.UnmarshalText([]byte(out.BeforeSum))
	if err == nil {
		err = head.UnmarshalText([]byte(out.HeadSum))
	}
	for i, r := range out.Records {
		records[i] = audit.Record{Seq: r.Seq, Index: r.Index, At: r.AtMs, Asked: audit.Asked{
			Since: r.SinceMs, Actor: r.Actor, Address: r.Address, Verb: r.Verb, App: r.App, Group: r.Group, What: r.What,
			Reason: r.Reason, Request: r.Request, Outcome: r.Outcome, Times: r.Times, Said: r.Said,
		}}
		if err == nil {
			err = records[i].Sum.UnmarshalText([]byte(r.Sum))
		}
	}
	if err == nil {
		err = audit.Verify(before, records)
	}
	if err != nil {
		return is, wrong("%s: %v", where, err)
	}
	if last := records[len(records)-1]; last.Seq != out.Head || !bytes.Equal(last.Sum, head) {
		return is, wrong("%s: its newest record is %d, its head %d:%s: what is between them is missing", where, last.Seq,
			out.Head, out.HeadSum)
	}
	if first := records[0].Seq; first != out.Kept {
		return is, wrong("%s: its oldest record is %d, it says %d", where, first, out.Kept)
	}
	if out.Lost > 0 {
		v.cuts = append(v.cuts, fmt.Sprintf("records up to %d were forgotten before all of them could be exported; "+
			"see the coordinators' logs of that time", out.Lost))
	}
	return stretch{where, latest, before, records}, nil
}

// join puts together what was read, the oldest epoch first.
func (v *chain) join(read []stretch) error {
	slices.SortStableFunc(read, func(a, b stretch) int { return cmp.Compare(a.epoch, b.epoch) })
	for _, s := range read {
		if len(s.records) == 0 {
			continue
		}
		if first := s.records[0].Seq; first > 1 {
			if err := v.meet(first-1, link{s.before, s.where, s.epoch}); err != nil {
				return err
			}
		}
		for _, r := range s.records {
			l := link{r.Sum, s.where, s.epoch}
			if err := v.meet(r.Seq, l); err != nil {
				return err
			}
			v.links[r.Seq] = l
		}
	}
	return nil
}

// meet compares a link with what was read of that number before. Another one of the same
// epoch was changed. Another one of an epoch before is of a time that a restored backup
// has taken back, whose numbers are used again: it ends where the newer one begins.
func (v *chain) meet(seq uint64, is link) error {
	was, known := v.links[seq]
	if !known || bytes.Equal(was.sum, is.sum) {
		return nil
	}
	if was.epoch == is.epoch {
		return wrong("record %d is another one in %s than in %s: one of them was changed", seq, is.where, was.where)
	}
	last := seq
	for n, l := range v.links {
		if n >= seq && l.epoch < is.epoch {
			delete(v.links, n)
			last = max(last, n)
		}
	}
	v.cuts = append(v.cuts, fmt.Sprintf("the chain was cut before record %d, as by a backup that was restored: records "+
		"%d to %d of %s are of the time that it took back, and no part of the chain of %s", seq, seq, last, was.where,
		is.where))
	return nil
}

// holds says why the chain lacks a head of before.
func (v *chain) holds(head string) error {
	number, want, _ := strings.Cut(strings.TrimSpace(head), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || len(want) < 16 {
		return usage("--head %q is none: it is written NUMBER:SUM, with 16 letters of SUM at least", head)
	}
	is, known := v.links[seq]
	switch {
	case known && strings.HasPrefix(is.sum.String(), strings.ToLower(want)):
		return nil
	case known:
		return wrong("record %d is another one than when its head was kept: it, or something before it, was changed, or "+
			"a backup of before was restored", seq)
	}
	return wrong("record %d, whose head was kept, is not there: give the exported files that have it, or a backup of "+
		"before was restored", seq)
}

// report says what fits.
func (v *chain) report(c *cli) error {
	if len(v.links) == 0 {
		return wrong("there is nothing to verify: no record is in the cluster, and no file was given that has one")
	}
	seqs := slices.Sorted(maps.Keys(v.links))
	for i := 1; i < len(seqs); i++ {
		if a, b := seqs[i-1], seqs[i]; b != a+1 {
			return wrong("records %d to %d are missing between %s and %s: give the exported files that have them",
				a+1, b-1, v.links[a].where, v.links[b].where)
		}
	}
	first, last := seqs[0], seqs[len(seqs)-1]
	if first > 1 {
		v.cuts = append(v.cuts, fmt.Sprintf("records 1 to %d were not read: they are in exported files", first-1))
	}
	if c.machine() {
		return c.emit(object{
			{"first", first},
			{"head", last},
			{"head_sum", v.links[last].sum.String()},
			{"notes", append([]string{}, v.cuts...)},
		})
	}
	for _, cut := range v.cuts {
		fmt.Fprintln(c.out, output.Line(cut))
	}
	fmt.Fprintf(c.out, "records %d to %d fit, head %d:%s\n", first, last, last, v.links[last].sum)
	return nil
}
