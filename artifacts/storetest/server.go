package storetest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/groundswell/groundswell/internal/s3server"
)

// Main runs the tests of a package against a real S3 server: it starts one,
// puts its credentials into the environment, calls run with it and ends it.
// TestMain calls it first and exits with its result.
func Main(m *testing.M, server *S3) int {
	s3server.MaybeServe()
	dir, err := os.MkdirTemp("", "groundswell-s3-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	s, err := s3server.Start(context.Background(), s3server.Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop() //nolint:errcheck // the process ends next
	for _, v := range append(s.Credentials(), "AWS_EC2_METADATA_DISABLED=true") {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	server.Server = s
	return m.Run()
}

// S3 is the server that [Main] has started.
type S3 struct {
	*s3server.Server
	buckets atomic.Int64
}

// Bucket creates an empty bucket for one test and returns its name.
func (s *S3) Bucket(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	if err := s.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
	return name
}
