// Package s3store keeps artifacts in a bucket of Amazon S3 or of a server
// that speaks its protocol.
package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/groundswell/groundswell/artifacts"
)

// Store is an [artifacts.Store] and [artifacts.Presigner] in one bucket.
// Credentials come from where the AWS SDK looks: environment, shared files,
// the role of the instance.
type Store struct {
	cfg    Config
	client *s3.Client
	upload *transfermanager.Client
	sign   *s3.PresignClient
}

// partSize is a part of a multipart upload; two travel at once, so an upload
// holds about 24 MiB.
const partSize = 8 << 20

// New opens the bucket that cfg names. It makes no request: a bucket that
// does not exist shows at the first use.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	// The SDK writes warnings to standard error, of a server's every answer.
	opts := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{}), config.WithRetryer(quickly)}
	if cfg.Region != "" {
		opts = append(opts, config.WithRegion(cfg.Region))
	}
	sdk, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open store %s: load AWS configuration: %w", cfg, err)
	}
	if sdk.Region == "" {
		sdk.Region = "us-east-1" // servers other than AWS seldom care
	}
	sdk.Credentials = aws.NewCredentialsCache(credentials{sdk.Credentials})
	client := s3.NewFromConfig(sdk, cfg.apply)
	return &Store{
		cfg: cfg, client: client, sign: s3.NewPresignClient(client),
		upload: transfermanager.New(client, func(o *transfermanager.Options) {
			o.PartSizeBytes, o.Concurrency = partSize, 2
			o.FailTimeout = 10 * time.Second // to take back the parts of an upload that was given up
		}),
	}, nil
}

// quickly repeats what one connection lost; who waits for a store to come back
// is the decorator of package retry.
func quickly() aws.Retryer {
	return retry.AddWithMaxBackoffDelay(retry.NewStandard(), 200*time.Millisecond)
}

// errNoCredentials stands for all that the SDK says of places where it looked.
var errNoCredentials = errors.New(
	"no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them")

// credentials are those that the SDK finds, or one sentence.
type credentials struct{ next aws.CredentialsProvider }

// Retrieve implements [aws.CredentialsProvider].
func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.next == nil {
		return aws.Credentials{}, errNoCredentials
	}
	out, err := c.next.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = errNoCredentials
	}
	return out, err
}

func (c Config) apply(o *s3.Options) {
	if c.Endpoint != "" {
		o.BaseEndpoint = aws.String(c.Endpoint)
	}
	custom := o.BaseEndpoint != nil && *o.BaseEndpoint != ""
	o.UsePathStyle = custom // a server of one's own seldom has a name for each bucket
	if c.PathStyle != nil {
		o.UsePathStyle = *c.PathStyle
	}
}

// Put implements [artifacts.Store]: one request, or a multipart upload that
// becomes visible when it is complete.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := artifacts.CheckKey(key); err != nil {
		return err
	}
	_, err := s.upload.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &s.cfg.Bucket, Key: s.key(key), Body: artifacts.SizedReader(r, size, "content"),
	})
	return s.explain("put", key, err)
}

// Open implements [artifacts.Opener].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(artifacts.CheckKey(key), artifacts.CheckRange(key, offset, length)); err != nil {
		return nil, err
	}
	in := &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: s.key(key), Range: byteRange(offset, length)}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		return nil, s.explain("open", key, err)
	}
	if length < 0 && out.ContentLength != nil {
		length = *out.ContentLength
	}
	return artifacts.FullBody(out.Body, length, "read "+key), nil
}

func byteRange(offset, length int64) *string {
	switch {
	case offset == 0 && length < 0:
		return nil
	case length < 0:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
}

// Stat implements [artifacts.Store].
func (s *Store) Stat(ctx context.Context, key string) (int64, error) {
	if err := artifacts.CheckKey(key); err != nil {
		return 0, err
	}
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: s.key(key)})
	if err != nil {
		return 0, s.explain("stat", key, err)
	}
	return aws.ToInt64(out.ContentLength), nil
}

// Delete implements [artifacts.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := artifacts.CheckKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: s.key(key)})
	if err = s.explain("delete", key, err); artifacts.IsNotExist(err) {
		return nil
	}
	return err
}

// Presign implements [artifacts.Presigner].
func (s *Store) Presign(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := artifacts.CheckKey(key); err != nil {
		return "", err
	}
	req, err := s.sign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: s.key(key)},
		s3.WithPresignExpires(ttl))
	if err != nil {
		return "", s.explain("presign", key, err)
	}
	return req.URL, nil
}

func (s *Store) key(key string) *string { return aws.String(path.Join(s.cfg.Prefix, key)) }

// explain names bucket and key, and maps what the server said to the two
// questions that decorators ask.
func (s *Store) explain(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	var api interface{ ErrorCode() string }
	var answer interface{ HTTPStatusCode() int }
	code, status := "", 0
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	var network *net.OpError
	switch {
	case errors.Is(err, errNoCredentials):
		err = artifacts.Permanent(errNoCredentials)
	case errors.As(err, &network):
		err = network // the URL and the attempts of the SDK say no more
	case code == "NoSuchBucket":
		err = artifacts.Permanent(fmt.Errorf("create the bucket or correct its name: %w", err))
	case code == "NoSuchKey" || status == http.StatusNotFound:
		err = fmt.Errorf("%w: %w", artifacts.ErrNotFound, err)
	case status == http.StatusRequestedRangeNotSatisfiable:
		err = artifacts.Permanent(fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err))
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		err = artifacts.Permanent(fmt.Errorf("check the credentials and their policy: %w", err))
	}
	return fmt.Errorf("%s %s in %s: %w", verb, key, s.cfg, err)
}
