package watch

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

var rewrite = flag.Bool("rewrite", false, "write golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (rewrite with -rewrite):\n%s", path, diff)
	}
}

// cluster answers what keys of the live view ask for.
type cluster struct {
	acts   []string
	logged []*controlv1.LogsResponse
}

func (c *cluster) API() controlv1.ControlServiceClient { return api{logged: c.logged} }

// api is a coordinator that knows what hooks wrote, and nothing else.
type api struct {
	controlv1.ControlServiceClient
	logged []*controlv1.LogsResponse
}

func (c *cluster) FailOver(error) error { return nil }

func (c *cluster) Act(_ context.Context, deployment, verb string) error {
	c.acts = append(c.acts, deployment+" "+verb)
	return nil
}

func (a api) Logs(context.Context, *controlv1.LogsRequest, ...grpc.CallOption) (
	grpc.ServerStreamingClient[controlv1.LogsResponse], error,
) {
	return &logs{left: a.logged}, nil
}

// logs is a stream of what hooks wrote.
type logs struct {
	grpc.ClientStream
	left []*controlv1.LogsResponse
}

func (l *logs) Recv() (*controlv1.LogsResponse, error) {
	if len(l.left) == 0 {
		return nil, io.EOF
	}
	r := l.left[0]
	l.left = l.left[1:]
	return r, nil
}

// state is a deployment as of an index.
func state(index uint64, status string, change ...func(*controlv1.Deployment)) *controlv1.Deployment {
	d := &controlv1.Deployment{
		Id: "01D", App: "www", Group: "prod", Revision: "9be01d7", From: "4f2a91c", Status: status, Actor: "marco",
		Index: index, Hosts: 2, ElapsedMs: int64(index) * 1000,
		Waves: []*controlv1.Wave{{Name: "all", Status: "deploying", Total: 2, Settled: 1, Granted: 1}},
	}
	for _, f := range change {
		f(d)
	}
	return d
}

func rec(index uint64, subject, to string) *controlv1.Record {
	return &controlv1.Record{Index: index, ElapsedMs: int64(index) * 1000, Subject: subject, To: to}
}

// TestHeartbeat is silent between two beats, so the second one must speak.
func TestHeartbeat(t *testing.T) {
	beats, updates := make(chan time.Time), make(chan Update)
	var out bytes.Buffer
	beat := func(d time.Duration) (<-chan time.Time, func()) {
		if d != 30*time.Second {
			t.Errorf("beats every %s", d)
		}
		return beats, func() {}
	}
	go func() {
		beats <- time.Time{}
		updates <- Update{
			Deployment: state(2, "running",
				func(d *controlv1.Deployment) { d.Holds = []string{"all: bakes for 5s more"} }),
			Records: []*controlv1.Record{rec(2, "deployment", "running")},
		}
		beats <- time.Time{}
		beats <- time.Time{}
		updates <- Update{Lost: rpc.Errorf(rpc.KindUnavailable, "gone")}
		beats <- time.Time{}
		updates <- Update{Deployment: state(9, "succeeded")}
		updates <- Update{end: errEnd}
	}()
	o := Options{Heartbeat: beat, Lines: Plain(&out)}
	if err := lines(t.Context(), o, newProgress(false), updates); !errors.Is(err, errEnd) {
		t.Error(err)
	}
	golden(t, "heartbeat.golden", out.String())
}
