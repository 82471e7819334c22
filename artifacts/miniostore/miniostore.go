// Package miniostore keeps artifacts in a bucket of a MinIO server, through
// MinIO's own client.
package miniostore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/groundswell/groundswell/artifacts"
)

// Store is an [artifacts.Store] and [artifacts.Presigner] in one bucket.
type Store struct {
	cfg    Config
	client minio.Core
}

// partSize is a part of a multipart upload, and what an upload holds in
// memory.
const partSize = 16 << 20

// New opens the bucket that cfg names. Credentials come from MINIO_ACCESS_KEY
// and MINIO_SECRET_KEY, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, the AWS
// variables, or the shared AWS file, in this order. It makes no request.
func New(cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	creds := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvMinio{}, &credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
	})
	if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID == "" {
		return nil, fmt.Errorf("open store %s: no credentials: set MINIO_ACCESS_KEY and MINIO_SECRET_KEY: %w", cfg,
			artifacts.ErrInvalid)
	}
	region := cfg.Region
	if region == "" {
		region = "us-east-1" // MinIO's own default; asking for it costs a request
	}
	client, err := minio.NewCore(cfg.Host, &minio.Options{
		Creds: creds, Secure: !cfg.Insecure, Region: region,
		BucketLookup: minio.BucketLookupPath, MaxRetries: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg, err)
	}
	return &Store{cfg: cfg, client: *client}, nil
}

// Put implements [artifacts.Store]: one request, or a multipart upload that
// becomes visible when it is complete.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := artifacts.CheckKey(key); err != nil {
		return err
	}
	body := artifacts.SizedReader(r, size, "content")
	_, err := s.client.Client.PutObject(ctx, s.cfg.Bucket, s.key(key), body, size,
		minio.PutObjectOptions{
			PartSize: partSize, NumThreads: 1,
			// What a signed stream of nothing has behind it is left on the connection by
			// some servers, and is the next request's answer.
			DisableContentSha256: size == 0,
		})
	return s.explain("put", key, err)
}

// Open implements [artifacts.Opener].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(artifacts.CheckKey(key), artifacts.CheckRange(key, offset, length)); err != nil {
		return nil, err
	}
	var opts minio.GetObjectOptions
	if err := setRange(&opts, offset, length); err != nil {
		return nil, s.explain("open", key, err)
	}
	body, info, _, err := s.client.GetObject(ctx, s.cfg.Bucket, s.key(key), opts)
	if err != nil {
		return nil, s.explain("open", key, err)
	}
	if length < 0 {
		length = info.Size
	}
	return artifacts.FullBody(body, length, "read "+key), nil
}

func setRange(opts *minio.GetObjectOptions, offset, length int64) error {
	switch {
	case offset == 0 && length < 0:
		return nil
	case length < 0:
		return opts.SetRange(offset, 0)
	}
	return opts.SetRange(offset, offset+length-1)
}

// Stat implements [artifacts.Store].
func (s *Store) Stat(ctx context.Context, key string) (int64, error) {
	if err := artifacts.CheckKey(key); err != nil {
		return 0, err
	}
	info, err := s.client.StatObject(ctx, s.cfg.Bucket, s.key(key), minio.StatObjectOptions{})
	if err != nil {
		return 0, s.explain("stat", key, err)
	}
	return info.Size, nil
}

// Delete implements [artifacts.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := artifacts.CheckKey(key); err != nil {
		return err
	}
	err := s.client.RemoveObject(ctx, s.cfg.Bucket, s.key(key), minio.RemoveObjectOptions{})
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
	u, err := s.client.PresignedGetObject(ctx, s.cfg.Bucket, s.key(key), ttl, nil)
	if err != nil {
		return "", s.explain("presign", key, err)
	}
	return u.String(), nil
}

func (s *Store) key(key string) string { return path.Join(s.cfg.Prefix, key) }

// explain names bucket and key, and maps what the server said to the two
// questions that decorators ask.
func (s *Store) explain(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	answer := minio.ToErrorResponse(err)
	switch {
	case answer.Code == minio.NoSuchBucket:
		err = artifacts.Permanent(fmt.Errorf("create the bucket or correct its name: %w", err))
	case answer.Code == minio.NoSuchKey || answer.StatusCode == http.StatusNotFound:
		err = fmt.Errorf("%w: %w", artifacts.ErrNotFound, err)
	case answer.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		err = artifacts.Permanent(fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err))
	case answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized:
		err = artifacts.Permanent(fmt.Errorf("check the credentials and their policy: %w", err))
	}
	return fmt.Errorf("%s %s in %s: %w", verb, key, s.cfg, err)
}
