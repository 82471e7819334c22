package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// silentServer listens, takes what comes and never answers.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the client's side
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// nobody is an address at which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Every error is one sentence of ours, with its exit code.
func TestErrorsAreSentences(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{fail: rpc.Errorf(rpc.KindNotFound, "no deployment \"nosuch\"; see `dctl history`")}))
	second := newCluster(t)
	other := second.serve(&fake{})
	refused := t.TempDir() // trusts both, and is of the first
	cert, key := cl.issue(identity.Operator, "marco")
	must(t, identity.Save(refused, cert, key, slices.Concat(cl.ca.PEM, second.ca.PEM)))
	gone := nobody(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"logs nosuch", 2, "dctl: no deployment \"nosuch\"; see `dctl history`\n"},
		{"status nosuch", 2, "dctl: no deployment \"nosuch\"; see `dctl history`\n"},
		{
			"status -C coord-1", 2,
			"dctl: coordinator address \"coord-1\" is not legal; write host:port, such as coord-1.example:7100\n",
		},
		{"status -C 127.0.0.1:http", 2, "host:port"},
		{"status -C " + other, 4, "dctl: the credential in " + cl.credentials() + " is of another cluster than the " +
			"coordinator at " + other + "; choose with --context, or with --credentials and --coordinator\n"},
		{"logs 01D -C " + other, 4, "of another cluster"},
		{"watch 01D -C " + other, 4, "of another cluster"},
		{"status --credentials " + refused + " -C " + other, 4, "it was revoked, or the cluster's CA was replaced"},
		{"watch 01D --credentials " + refused + " -C " + other, 4, "it was revoked, or the cluster's CA was replaced"},
		{"status --timeout 300ms -C " + gone, 1, "dctl: no answer from " + gone + " within 300ms (--timeout): " +
			"dial tcp " + gone + ": connect: connection refused\n"},
		{"deplo --app x", 2, "dctl: unknown command \"deplo\" of dctl; did you mean `dctl deploy`?\n"},
		{"-o json hots list --app x", 2, "did you mean `dctl hosts`?"},
		{"hosts lst --app x", 2, "did you mean `dctl hosts list`?"},
		{"deploy --ap x", 2, "unknown flag --ap of dctl deploy; did you mean --app?"},
	} {
		got := cl.callWith(t.Context(), func(c *cli) { c.wait = sleep }, strings.Fields(c.args)...)
		if got.code != c.code || !strings.HasSuffix(got.err, c.want) && !strings.Contains(got.err,
			strings.TrimSuffix(c.want, "\n")) {
			t.Errorf("dctl %s: exit %d, %q; want %d, %q", c.args, got.code, got.err, c.code, c.want)
		}
		for _, bad := range []string{"rpc error", "desc =", "no output"} {
			if strings.Contains(got.err, bad) {
				t.Errorf("dctl %s: %q", c.args, got.err)
			}
		}
	}
}

// A credential that counts no more is told as such though another coordinator is
// dead.
func TestRefusedBesideADeadCoordinator(t *testing.T) {
	first, second := newCluster(t), newCluster(t)
	refused := t.TempDir() // trusts both, and is of the first
	cert, key := first.issue(identity.Operator, "marco")
	must(t, identity.Save(refused, cert, key, slices.Concat(first.ca.PEM, second.ca.PEM)))
	at := nobody(t) + "," + second.serve(&fake{})
	for _, args := range []string{"status", "watch 01D"} {
		got := first.call(append(strings.Fields(args), "--credentials", refused, "-C", at)...)
		if got.code != exitAuth || !strings.Contains(got.err, "it was revoked") {
			t.Errorf("%s: exit %d, %s", args, got.code, got.err)
		}
	}
}

// A program finds the error on standard output, wherever --output stands.
func TestErrorsForPrograms(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{fail: rpc.Errorf(rpc.KindNotFound, "no such thing")}))
	for _, args := range []string{
		"status nosuch -o json", "-o jsonl status nosuch", "--output=json logs nosuch", "deploy --wrong -o json",
		"-ojson deploy", "apps apply -f /nowhere -o json",
	} {
		got := cl.call(strings.Fields(args)...)
		var answer struct {
			Error string `json:"error"`
			Code  int    `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(got.out), &answer); err != nil || strings.Count(got.out, "\n") != 1 {
			t.Errorf("dctl %s: %q: %v", args, got.out, err)
		}
		if answer.Code != got.code || got.code != 2 || "dctl: "+answer.Error+"\n" != got.err {
			t.Errorf("dctl %s: exit %d, %+v, %q", args, got.code, answer, got.err)
		}
	}
	if got := cl.call("status", "nosuch"); got.out != "" {
		t.Errorf("for a person: %q", got.out)
	}
	if got := cl.call("local", "deploy", "-o", "json"); strings.Count(got.out, "\n") != 1 || !strings.Contains(got.out,
		`"result":"failed"`) {
		t.Errorf("a local deployment has its own form: %q", got.out)
	}
}

// Whatever is asked of a coordinator that never answers ends with --timeout.
func TestTimeoutHoldsEverywhere(t *testing.T) {
	cl := newCluster(t)
	cl.context(silentServer(t))
	for _, args := range []string{
		"status", "logs 01D", "logs 01D -f", "watch 01D", "deploy --app www --rev v1", "hosts list --wait 3", "whoami",
		"cluster backup " + filepath.Join(t.TempDir(), "b"), "revisions list --app www", "pause 01D", "history",
		"revisions push " + newBundle(t, cl) + " --app www --rev v1", "token create --role agent", "audit",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := cl.callWith(ctx, func(c *cli) { c.wait = sleep }, append(strings.Fields(args), "--timeout", "200ms")...)
		if ctx.Err() != nil || strings.HasPrefix(got.err, "dctl: unknown command") {
			if ctx.Err() != nil {
				t.Errorf("dctl %s waits on", args)
			}
		} else if got.code != exitOther || !strings.Contains(got.err, "within 200ms") {
			t.Errorf("dctl %s: exit %d, %q", args, got.code, got.err)
		}
		cancel()
	}
}

// Who waits is told whom for, once, and not in a program's output.
func TestWaitingIsSaid(t *testing.T) {
	cl := newCluster(t)
	address := silentServer(t)
	cl.context(address)
	got := cl.callWith(t.Context(), func(c *cli) {
		c.wait = sleep
		c.patience = func(context.Context, time.Duration) error { return nil } // it is long
	}, "status", "--timeout", "200ms", "-o", "json")
	if strings.Count(got.err,
		"waiting for a coordinator at "+address+" …") != 1 || strings.Contains(got.out, "waiting") {
		t.Errorf("%+v", got)
	}
}

// newBundle is a bundle as `dctl apps init` writes it.
func newBundle(t *testing.T, cl *cluster) string {
	t.Helper()
	dir := t.TempDir()
	if got := cl.call("apps", "init", "--app", "www", "--dir", dir); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	return dir
}

// A store that is dead is named within --timeout; nothing of its SDK's is told.
func TestDeadStore(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	dir := newBundle(t, cl)
	for name, c := range map[string]struct{ address, limit, want string }{
		"silent": {silentServer(t), "400ms", ""},
		"gone":   {nobody(t), "2s", "connection refused"},
	} {
		f.apps = []*controlv1.App{{Name: "www", Groups: []*controlv1.Group{{
			Name: "prod", Artifacts: "s3://bucket/www?endpoint=http://" + c.address,
		}}}}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		got := cl.callWith(ctx, func(c *cli) { c.patience = func(context.Context, time.Duration) error { return nil } },
			"revisions", "push", dir, "--app", "www", "--rev", "v1", "--timeout", c.limit)
		if ctx.Err() != nil || got.code != exitOther ||
			!strings.Contains(got.err, "the store s3://bucket/www gave no sign of life for "+c.limit+" (--timeout)") ||
			!strings.Contains(got.err, c.want) || !strings.Contains(got.err,
			"waiting for the store s3://bucket/www …") {
			t.Errorf("%s: exit %d: %s", name, got.code, got.err)
		}
		for _, noise := range []string{"SDK", "operation error", "RequestID", "secret"} {
			if strings.Contains(got.err, noise) {
				t.Errorf("%s: %q in %s", name, noise, got.err)
			}
		}
		cancel()
	}
}

// What a host would fail on is not sent, unless one says so.
func TestPushLints(t *testing.T) {
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	store := "file://" + t.TempDir()
	f.apps = []*controlv1.App{{Name: "www", Groups: []*controlv1.Group{{Name: "prod", Artifacts: store}}}}
	dir := newBundle(t, cl)
	must(t, os.Remove(filepath.Join(dir, "scripts", "start.sh")))
	push := []string{"revisions", "push", dir, "--app", "www", "--rev", "v1"}
	if got := cl.call(push...); got.code != 2 || !strings.Contains(got.err, "scripts/start.sh") ||
		!strings.Contains(got.err, "nothing was sent; mend them, or say --no-lint") || len(f.revisions) > 0 {
		t.Errorf("%+v", got)
	}
	if got := cl.call(append(push, "--no-lint")...); got.code != 0 || len(f.revisions) != 1 {
		t.Errorf("%+v", got)
	}
}

// The application is the argument or --app, as everywhere else.
func TestAppsTakeBoth(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{apps: []*controlv1.App{{Name: "www", Groups: []*controlv1.Group{{Name: "prod"}}}}}))
	one, two := cl.call("apps", "show", "www"), cl.call("apps", "show", "--app", "www")
	if one.code != 0 || one != two {
		t.Errorf("%+v and %+v", one, two)
	}
	if got := cl.call("apps", "show"); got.code != 2 || !strings.Contains(got.err, "APP is missing") {
		t.Errorf("%+v", got)
	}
	if got := cl.call("apps", "show", "www", "--app", "api"); got.code != 2 {
		t.Errorf("%+v", got)
	}
}

// A watch goes on with the credential that another dctl has renewed meanwhile.
func TestAWatchTakesARenewedCredential(t *testing.T) {
	before, after := newCluster(t), newCluster(t) // one cluster, before and after its CA was replaced
	first := before.serve(&fake{watch: func(n int, _ *controlv1.WatchDeploymentRequest,
		send func(...*controlv1.WatchDeploymentResponse),
	) error {
		send(news(state(1, "running")))
		cert, key := after.issue(identity.Operator, "marco")
		must(t, identity.Save(before.credentials(), cert, key, after.ca.PEM))
		return rpc.Errorf(rpc.KindUnavailable, "its certificate was renewed")
	}})
	second := after.serve(&fake{watch: ends(state(9, "succeeded"))})
	before.context(first, second)
	if got := before.call("watch", "01D"); got.code != exitDone || strings.Contains(got.err, "another cluster") {
		t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
	}
}

// A context that was made when the cluster had one coordinator learns of the others
// when they are looked at.
func TestAContextLearnsOfCoordinators(t *testing.T) {
	cl := newCluster(t)
	first := cl.serve(&fake{})
	cl.context(first)
	for range 2 {
		if got := cl.call("cluster", "status"); got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	all, err := ReadContexts(cl.path)
	if err != nil || !slices.Equal(all.Contexts["test"].Coordinators, []string{first, "c1:7100"}) {
		t.Errorf("%+v, %v", all, err)
	}
}
