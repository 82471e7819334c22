package sessions

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/bucket"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// What one host may send in its session. What comes faster waits, and so, by the
// flow control of its stream, does the host; nobody else does. An agent that
// waits loses nothing: it sends the newest state of each target.
//
// A deployment makes some ten reports of a target, of 300 bytes, or 5 KiB with
// what a script said last; a session begins with one of every target. 512 of
// them cover a host of 64 applications that reconnects and deploys all of them
// at once, and 20 a second one whose probes change their mind each second on 20
// of them. The 64 KiB that may be on the way make 15 s at that rate, half of
// what an agent waits for an acknowledgement.
var (
	messages    = bucket.Limit{PerSecond: 100, Burst: 2000}
	reports     = bucket.Limit{PerSecond: 20, Burst: 512}
	reportBytes = bucket.Limit{PerSecond: 32 << 10, Burst: 1 << 20} // that enter the log
	logBytes    = bucket.Limit{PerSecond: 4 << 20, Burst: 8 << 20}  // hook output for people
	// A session that ends without a welcome comes again after 50 ms to 5 s.
	hellos = bucket.Limit{PerSecond: 2, Burst: 60}
	// A process of an agent is new when the agent was restarted, by a service manager
	// every few seconds at most; each is written down, and asked about everywhere.
	processes = bucket.Limit{PerSecond: 0.1, Burst: 20}
	// What a host says of itself changes with its configuration, and each change
	// asks every selector of every host.
	changes = bucket.Limit{PerSecond: 1.0 / 60, Burst: 10}
)

// mostItems bounds the reports of one message; a host has fewer applications.
const mostItems = 1024

// limits are the buckets of all hosts.
type limits struct{ messages, reports, reportBytes, logBytes, hellos, processes, changes *bucket.Buckets }

func newLimits() limits {
	return limits{
		messages: bucket.New(messages), reports: bucket.New(reports), reportBytes: bucket.New(reportBytes),
		logBytes: bucket.New(logBytes), hellos: bucket.New(hellos), processes: bucket.New(processes), changes: bucket.New(changes),
	}
}

// tooMany refuses what a host has had its share of.
type tooMany struct{ what string }

func (e tooMany) Error() string { return e.what + "; wait a little and come again" }

// Kind names the error for a transport.
func (tooMany) Kind() string { return "too_many" }

// slow waits until the host may have n more of what the bucket holds.
func (s *Service) slow(ctx context.Context, b *bucket.Buckets, host string, n int, what string) error {
	waited, err := b.Wait(ctx, host, n)
	if waited {
		s.o.Limited(host, what)
	}
	return err
}

// refuse refuses what the host has had its share of.
func (s *Service) refuse(host, what string) error {
	s.o.Limited(host, what)
	return tooMany{what: "too many " + what + " of this host"}
}

// pace waits until a message of the host may be looked at.
func (s *Service) pace(ctx context.Context, host string, up *agentv1.Up) error {
	if err := s.slow(ctx, s.limits.messages, host, 1, "messages"); err != nil {
		return err
	}
	switch m := up.Message.(type) {
	case *agentv1.Up_Reports:
		if n := len(m.Reports.GetItems()); n > mostItems {
			return &deploy.Refusal{
				Reason: deploy.Invalid, Text: fmt.Sprintf("%d reports in one message; send at most %d", n, mostItems),
			}
		}
		return s.slow(ctx, s.limits.reports, host, len(m.Reports.GetItems()), "reports")
	case *agentv1.Up_Log:
		return s.slow(ctx, s.limits.logBytes, host, proto.Size(up), "output")
	}
	return nil
}

// farAhead bounds how far a host's counters may be ahead of what the log has
// of it. After a backup was restored they are, by the reports since: 2^32 are
// 136 years of one a second. Who wants to bring them to their bound, where the
// host is heard no more, needs 2^30 reports, which its bucket makes two years.
const farAhead = 1 << 32

// wild says why a report's counters cannot be a host's own.
func wild(what string, said, known uint64) error {
	if said <= known+farAhead {
		return nil
	}
	return &deploy.Refusal{Reason: deploy.Invalid, Text: fmt.Sprintf(
		"the host's %s is %d and the cluster knows %d: its journal is damaged, or another one's; "+
			"remove the agent's state folder and give it a token of `dctl token create "+
			"--host NAME`", what, said, known)}
}
