package miniostore

import (
	"fmt"
	"net/url"
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
	return artifacts.CheckPrefix(c, c.Prefix)
}

// ParseURL reads minio://host:port/bucket/prefix?secure=false&region=….
// Credentials in a URL are refused: they would end in logs and histories.
func ParseURL(u *url.URL) (Config, error) {
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	c := Config{Host: u.Host, Bucket: bucket, Prefix: prefix}
	err := artifacts.BucketURL{
		URL: u, Store: c, Secrets: "MINIO_ACCESS_KEY and MINIO_SECRET_KEY",
		Set: map[string]func(string) error{
			"region": artifacts.Text(&c.Region),
			"secure": artifacts.YesNo(func(yes bool) { c.Insecure = !yes }),
		},
	}.Read()
	if err != nil {
		return c, err
	}
	return c, c.check()
}
