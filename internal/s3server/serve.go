// Package s3server runs a real S3 server, versitygw, in a child process of
// the current program, for dctl dev and for tests.
//
// A process of its own is needed because the server changes the working
// directory, keeps global state and allows one instance a process. The child
// is this very binary: its main calls [MaybeServe] first.
package s3server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// childEnv marks the child and carries its Config. Secrets travel in the
// environment, which other users cannot read, and never in arguments.
const childEnv = "GROUNDSWELL_S3SERVER_CHILD"

// Region is the region that the server answers for.
const Region = "us-east-1"

// Config is what the child serves.
type Config struct {
	// Dir holds data/, versions/ and meta/. It must be absolute.
	Dir string
	// Addr is "127.0.0.1:port" or "[::1]:port"; other interfaces are refused.
	Addr string
	// AccessKey and SecretKey are those of the only account.
	AccessKey, SecretKey string
}

// MaybeServe turns a process that [Start] has started into the server: it
// serves until it is told to end and exits. In any other process it returns
// at once. main and TestMain call it before anything else.
func MaybeServe() {
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return
	}
	if err := serveText(text); err != nil {
		fmt.Fprintln(os.Stderr, "s3 server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveText(text string) error {
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("read configuration from %s: %w", childEnv, err)
	}
	if err := os.Unsetenv(childEnv); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return Serve(ctx, c)
}

// Serve runs the server in this process until ctx ends. It changes the
// working directory, and a process may call it once: use [Start] instead.
func Serve(ctx context.Context, c Config) error {
	if err := checkLoopback(c.Addr); err != nil {
		return err
	}
	data, versions := filepath.Join(c.Dir, "data"), filepath.Join(c.Dir, "versions")
	if err := errors.Join(os.MkdirAll(data, 0o755), os.MkdirAll(versions, 0o755)); err != nil {
		return fmt.Errorf("serve S3 from %s: %w", c.Dir, err)
	}
	opts := posix.PosixOpts{VersioningDir: versions, NewDirPerm: 0o755}
	storer, err := metadata(data, filepath.Join(c.Dir, "meta"), &opts)
	if err != nil {
		return err
	}
	backend, err := posix.New(data, storer, opts)
	if err != nil {
		return fmt.Errorf("serve S3 from %s: %w", c.Dir, err)
	}
	err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: c.AccessKey, RootUserSecret: c.SecretKey, Region: Region,
		Ports: []string{c.Addr}, HealthPath: healthPath,
		// The server's default is a connection a request; the limits have no
		// defaults, and zero means none at all.
		KeepAlive: true, Quiet: true,
		MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10_000,
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve S3 on %s: %w", c.Addr, err)
	}
	return nil
}

// metadata keeps attributes in extended attributes, or in a folder beside
// the data where the file system has none.
func metadata(data, sidecar string, opts *posix.PosixOpts) (meta.MetadataStorer, error) {
	if err := (meta.XattrMeta{}).Test(data); err == nil {
		return meta.XattrMeta{}, nil
	}
	if err := os.MkdirAll(sidecar, 0o755); err != nil {
		return nil, fmt.Errorf("keep S3 metadata: %w", err)
	}
	opts.SideCarDir = sidecar
	storer, err := meta.NewSideCar(sidecar)
	if err != nil {
		return nil, fmt.Errorf("keep S3 metadata in %s: %w", sidecar, err)
	}
	return storer, nil
}
