package s3store

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/groundswell/groundswell/artifacts"
)

// Config names a bucket. Empty fields leave the choice to the AWS
// environment: AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.
type Config struct {
	Bucket string
	// Prefix is put in front of every key.
	Prefix string
	// Endpoint is the http(s) URL of a server other than AWS.
	Endpoint string
	Region   string
	// PathStyle puts the bucket into the path instead of the host name. nil
	// means yes for any endpoint but AWS's own.
	PathStyle *bool
}

// String returns the place without anything that could be secret.
func (c Config) String() string {
	return strings.TrimSuffix("s3://"+c.Bucket+"/"+c.Prefix, "/")
}

func (c Config) check() error {
	if c.Bucket == "" {
		return fmt.Errorf("open S3 store: no bucket: write s3://bucket/prefix: %w", artifacts.ErrInvalid)
	}
	if err := artifacts.CheckPrefix(c, c.Prefix); err != nil {
		return err
	}
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("open store %s: endpoint: want http(s)://host:port without credentials: %w", c,
			artifacts.ErrInvalid)
	}
	return nil
}

// ParseURL reads s3://bucket/prefix?endpoint=…&region=…&path-style=….
// Credentials in a URL are refused: they would end in logs and histories.
func ParseURL(u *url.URL) (Config, error) {
	c := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	err := artifacts.BucketURL{
		URL: u, Store: c, Secrets: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
		Set: map[string]func(string) error{
			"endpoint":   artifacts.Text(&c.Endpoint),
			"region":     artifacts.Text(&c.Region),
			"path-style": artifacts.YesNo(func(yes bool) { c.PathStyle = &yes }),
		},
	}.Read()
	if err != nil {
		return c, err
	}
	return c, c.check()
}
