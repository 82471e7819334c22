package miniostore

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/groundswell/groundswell/artifacts"
)

// Config names a bucket on a MinIO server.
type Config struct {
	// Host is host or host:port.
	Host   string
	Bucket string
	// Prefix is put in front of every key.
	Prefix string
	Region string
	// Insecure speaks http instead of https.
	Insecure bool
}

// String returns the place without anything that could be secret.
func (c Config) String() string {
	return strings.TrimSuffix("minio://"+c.Host+"/"+c.Bucket+"/"+c.Prefix, "/")
}

func (c Config) check() error {
	if c.Host == "" || c.Bucket == "" {
		return fmt.Errorf("open store %s: write minio://host:port/bucket/prefix: %w", c, artifacts.ErrInvalid)
	}
	if c.Prefix == "" {
		return nil
	}
	if err := artifacts.CheckKey(strings.ToLower(c.Prefix)); err != nil {
		return fmt.Errorf("open store %s: prefix: %w", c, err)
	}
	return nil
}

// ParseURL reads minio://host:port/bucket/prefix?secure=false&region=….
// Credentials in a URL are refused: they would end in logs and histories.
func ParseURL(u *url.URL) (Config, error) {
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	c := Config{Host: u.Host, Bucket: bucket, Prefix: prefix}
	if u.User != nil {
		return c, fmt.Errorf("open store %s: credentials do not belong into a URL: set MINIO_ACCESS_KEY and "+
			"MINIO_SECRET_KEY: %w", c, artifacts.ErrInvalid)
	}
	for name, values := range u.Query() {
		if err := c.set(name, values[len(values)-1]); err != nil {
			return c, err
		}
	}
	return c, c.check()
}

func (c *Config) set(name, value string) error {
	switch name {
	case "region":
		c.Region = value
	case "secure":
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("open store %s: secure=%q is neither true nor false: %w", c, value, artifacts.ErrInvalid)
		}
		c.Insecure = !yes
	default:
		return fmt.Errorf("open store %s: unknown parameter %q, want one of region, secure: %w", c, name,
			artifacts.ErrInvalid)
	}
	return nil
}
