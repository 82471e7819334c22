// Package stores opens the artifact store that a URL names; it is the only
// place that knows all providers.
package stores

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/artifacts/miniostore"
	"github.com/groundswell/groundswell/artifacts/retry"
	"github.com/groundswell/groundswell/artifacts/s3store"
)

// forms lists what Open accepts, for errors.
const forms = "file:///absolute/path, s3://bucket/prefix or minio://host:port/bucket/prefix"

// Open returns the store at text, one of
//
//	file:///absolute/path
//	s3://bucket/prefix?endpoint=http://host:port&region=…&path-style=true
//	minio://host:port/bucket/prefix?secure=false&region=…
//
// with its calls repeated while that can help. The store presigns. It makes
// no request. Credentials come from the environment and are refused in the
// URL; no error shows them. Errors wrap [artifacts.ErrInvalid].
func Open(ctx context.Context, text string) (artifacts.Store, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("open store: %w: write %s: %w", withoutText(err), forms, artifacts.ErrInvalid)
	}
	if u.User != nil {
		return nil, fmt.Errorf("open store of scheme %q: credentials do not belong into a URL: set them in the "+
			"environment: %w", u.Scheme, artifacts.ErrInvalid)
	}
	s, err := provider(ctx, u)
	if err != nil {
		return nil, err
	}
	return retry.New(s, retry.Options{}), nil
}

func provider(ctx context.Context, u *url.URL) (artifacts.Store, error) {
	switch u.Scheme {
	case "file":
		return dirstore.NewURL(u)
	case "s3":
		cfg, err := s3store.ParseURL(u)
		if err != nil {
			return nil, err
		}
		return s3store.New(ctx, cfg)
	case "minio":
		cfg, err := miniostore.ParseURL(u)
		if err != nil {
			return nil, err
		}
		return miniostore.New(cfg)
	case "":
		return nil, fmt.Errorf("open store %q: no scheme: write %s: %w", u.Redacted(), forms, artifacts.ErrInvalid)
	}
	return nil, fmt.Errorf("open store: unknown scheme %q: write %s: %w", u.Scheme, forms, artifacts.ErrInvalid)
}

// withoutText drops the URL from a parse error: it may hold a password.
func withoutText(err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}
