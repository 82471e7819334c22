package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/cmd/dctl/output"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// client talks to one cluster. When a coordinator does not answer it turns to
// the next. Its methods may be called concurrently.
type client struct {
	cli  *cli
	cred *identity.Credential
	dir  string // of the credential
	stop func() // keepRenewed
	seen rpc.Seen
	// addresses as they were given
	where []string

	mu        sync.Mutex
	addresses []string
	conn      *grpc.ClientConn
	refused   int       // tries that found our certificate refused
	last      time.Time // of them
}

// renewPatience is how long a command waits for a new certificate in passing.
const renewPatience = 3 * time.Second

// connect finds out where the cluster is and who we are, and renews who we are
// if that is due. It does not wait for a connection else.
func (c *cli) connect() (*client, error) {
	where, err := c.where()
	if err != nil {
		return nil, err
	}
	cred, err := identity.Load(where.Credentials)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &exitError{
			code: exitAuth,
			text: fmt.Sprintf("no credentials in %s: it needs tls.crt, tls.key and ca.crt; see `dctl login --help`",
				where.Credentials),
		}
	}
	if err != nil {
		return nil, &exitError{code: exitAuth, err: err}
	}
	if err := cred.Valid(time.Now()); err != nil {
		return nil, &exitError{code: exitAuth, text: err.Error() + comeBack(cred)}
	}
	cl := &client{
		cli: c, cred: cred, dir: where.Credentials, where: where.Coordinators, addresses: where.Coordinators,
	}
	_ = cl.renew(context.Background()) // the next command tries again
	if cl.conn, err = cl.dial(); err == nil {
		cl.keepRenewed()
	}
	return cl, err
}

// comeBack says how somebody whose certificate has ended gets in again.
func comeBack(cred *identity.Credential) string {
	who, _ := cred.Peer() // it was read when the credential was loaded
	if who.BreakGlass {
		return "; a break-glass credential lives for a day"
	}
	return fmt.Sprintf(
		"; ask an operator for a token (`dctl token create --role operator --name %s`) and give it to `dctl login` "+
			"with the same --credentials, or make a break-glass credential on a coordinator's machine (`dcoord operator "+
			"--help`)", who.ID)
}

func (cl *client) dial() (*grpc.ClientConn, error) {
	how := cl.seen.Options()
	if cl.cli.flags.stale {
		how = append(how, rpc.Stale()...)
	}
	return rpc.Dial(cl.addresses, cl.cred.Client(), how...)
}

// where joins flags and the contexts file, and checks the addresses.
func (c *cli) where() (Context, error) {
	out, err := c.lookUp()
	if err != nil {
		return out, err
	}
	return out, checkAddresses(out.Coordinators)
}

// checkAddresses refuses what no connection can be made to.
func checkAddresses(all []string) error {
	for _, a := range all {
		host, port, err := net.SplitHostPort(a)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
			return usage("coordinator address %q is not legal; write host:port, such as coord-1.example:7100", a)
		}
	}
	return nil
}

func (c *cli) lookUp() (Context, error) {
	out := Context{Coordinators: c.flags.coordinators, Credentials: c.flags.credentials}
	if len(out.Coordinators) > 0 && out.Credentials != "" {
		return out, nil
	}
	path, err := ContextsPath(c.getenv)
	if err != nil {
		return Context{}, usage("%v; give --coordinator and --credentials", err)
	}
	all, err := ReadContexts(path)
	if err != nil {
		return Context{}, err
	}
	ctx, err := all.pick(c.flags.context, path)
	if err != nil {
		return Context{}, err
	}
	if len(out.Coordinators) == 0 {
		out.Coordinators = ctx.Coordinators
	}
	if out.Credentials == "" {
		out.Credentials = ctx.Credentials
	}
	if len(out.Coordinators) == 0 {
		return Context{}, usage("the context in %s names no coordinator; give --coordinator", path)
	}
	return out, nil
}

// close ends the connection, and renews who we are if the cluster's CA was replaced.
func (cl *client) close() {
	cl.stop()
	_ = cl.conn.Close() // nothing is left to lose
	if cl.cred.Outdated() {
		_ = cl.renew(context.Background()) // the next command tries again
	}
}

// renew gets a new certificate if that is due.
func (cl *client) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewPatience)
	defer cancel()
	return agent.RenewOperator(ctx, cl.where, cl.cred, cl.dir)
}

// keepRenewed renews who we are while a long command runs, until close.
func (cl *client) keepRenewed() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		cl.cred.KeepRenewed(ctx, cl.renew, func(error) {}) // it is tried again; what fails for want of it says so
	}()
	cl.stop = func() { cancel(); <-done }
}

// api is the service at the coordinator that answered last.
func (cl *client) api() controlv1.ControlServiceClient {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return controlv1.NewControlServiceClient(cl.conn)
}

// refusalsCount is how long a refusal counts: tries at coordinators that are dead
// lie between two of one that lives. One alone may be of a coordinator that has not
// heard yet of the CA of which our certificate is.
const (
	refusalsCount = 30 * time.Second
	mostRefusals  = 3
)

// failOver gives up on the present coordinator because of an error, and tries the
// next one first, with the credential that is on disk by now. It returns an error
// if no other try can help: the credential is taken nowhere.
func (cl *client) failOver(err error) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.reload() || time.Since(cl.last) > refusalsCount {
		cl.refused = 0
	}
	switch {
	case rpc.Stranger(err): // another dctl may just be writing what is ours: once more
		cl.refused += mostRefusals - 1
	case rpc.Refused(err):
		cl.refused++
	}
	if rpc.Stranger(err) || rpc.Refused(err) {
		cl.last = time.Now()
	}
	if cl.refused >= mostRefusals {
		return cl.stranger()
	}
	cl.next()
	return nil
}

// reload takes the credential on disk into use, if it is another one: a dctl
// beside this one has renewed it.
func (cl *client) reload() bool {
	cred, err := identity.Load(cl.dir)
	if err != nil || bytes.Equal(cred.Leaf().Raw, cl.cred.Leaf().Raw) {
		return false
	}
	cl.cred.ReplaceWith(cred)
	return true
}

func (cl *client) next() {
	cl.addresses = append(append([]string{}, cl.addresses[1:]...), cl.addresses[0])
	conn, err := cl.dial()
	if err != nil {
		return // the present connection reconnects by itself
	}
	_ = cl.conn.Close() // it was of no use
	cl.conn = conn
}

// mutation is what identifies a request that changes something. All tries of
// one call share it, so it takes effect once.
func (cl *client) mutation(id string) *controlv1.Mutation {
	if id == "" {
		id = ulid.Make().String()
	}
	return &controlv1.Mutation{RequestId: id, Reason: cl.cli.flags.reason}
}

// method is a unary call of the service.
type method[Q, A any] func(controlv1.ControlServiceClient, context.Context, *Q, ...grpc.CallOption) (*A, error)

// maxReply bounds an answer: the whole history of a deployment to 10,000 hosts
// is some 10 MB.
const maxReply = 64 << 20

// call makes a request until a coordinator answers or --timeout has passed.
func call[Q, A any](ctx context.Context, cl *client, f method[Q, A], req *Q) (*A, error) {
	return attempt(ctx, cl, func(ctx context.Context) (*A, error) {
		return f(cl.api(), ctx, req, grpc.MaxCallRecvMsgSize(maxReply))
	})
}

// receive opens a stream and returns it with its first message, within
// --timeout; it may then last. A stream that ends before any is io.EOF.
func receive[A any](ctx context.Context, cl *client,
	open func(controlv1.ControlServiceClient, context.Context) (grpc.ServerStreamingClient[A], error),
) (*A, grpc.ServerStreamingClient[A], error) {
	var stream grpc.ServerStreamingClient[A]
	first, err := attempt(ctx, cl, func(limited context.Context) (*A, error) {
		inner, cancel := context.WithCancel(ctx) // outlives the limit of the first message
		stop := context.AfterFunc(limited, cancel)
		var err error
		if stream, err = open(cl.api(), inner); err == nil {
			var m *A
			if m, err = stream.Recv(); err == nil && stop() {
				return m, nil
			}
		}
		cancel()
		if limited.Err() != nil && !errors.Is(err, io.EOF) {
			err = limited.Err()
		}
		return nil, err
	})
	return first, stream, err
}

// attempt repeats f, at one coordinator after the other, until it has an answer
// or --timeout has passed. After a while it says what it waits for.
func attempt[A any](ctx context.Context, cl *client, f func(context.Context) (*A, error)) (*A, error) {
	limit := time.Duration(cl.cli.flags.timeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer cl.cli.saying("waiting for a coordinator at " + strings.Join(cl.addresses, ", "))()
	var last error
	for b := newBackoff(); ; {
		out, err := f(ctx)
		if err == nil || !transient(err) {
			return out, err
		}
		if rpc.Kind(err) != rpc.KindTimeout || last == nil {
			last = err
		}
		if err := cl.failOver(err); err != nil {
			return nil, err
		}
		if cl.cli.wait(ctx, b.NextBackOff()) != nil || ctx.Err() != nil {
			return nil, cl.unreachable(ctx, limit, last)
		}
	}
}

// sayAfter is how long dctl waits without a word.
const sayAfter = 2 * time.Second

// saying tells a person what dctl waits for, unless the wait is over by then:
// the function that it returns ends it. A live view says so itself.
func (c *cli) saying(what string) (over func()) {
	if c.drawing {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	said := make(chan struct{})
	go func() {
		defer close(said)
		if c.patience(ctx, sayAfter) == nil {
			fmt.Fprintln(c.err, "dctl: "+output.Clean(what)+" …")
		}
	}()
	return func() { cancel(); <-said }
}

// stranger says that the credential is of another cluster.
func (cl *client) stranger() error {
	return &exitError{code: exitAuth, text: fmt.Sprintf(
		"the credential in %s is of another cluster than the coordinator at %s; "+
			"choose with --context, or with --credentials and --coordinator. If it was of this one, it was revoked, or "+
			"the cluster's CA was replaced meanwhile%s", cl.dir, strings.Join(cl.addresses, ", "), comeBack(cl.cred))}
}

// transient reports whether another try, elsewhere, may succeed.
func transient(err error) bool {
	k := rpc.Kind(err)
	return k == rpc.KindUnavailable || k == rpc.KindTimeout || k == rpc.KindTooMany
}

// newBackoff spaces the tries of a call: a person waits.
func newBackoff() *backoff.Backoff { return &backoff.Backoff{Longest: 3 * time.Second} }

func (cl *client) unreachable(ctx context.Context, limit time.Duration, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	why := ""
	if rpc.Kind(last) != rpc.KindTimeout {
		why = ": " + rpc.Text(last)
	}
	return &exitError{code: exitOther, text: fmt.Sprintf("no answer from %s within %s (--timeout)%s",
		strings.Join(cl.addresses, ", "), limit, why)}
}

// with connects, runs f and closes.
func (c *cli) with(f func(*client) error) error {
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.close()
	return f(cl)
}
