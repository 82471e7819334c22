package s3store

import (
	"fmt"
	"net/url"
	"strconv"
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
	if c.Prefix != "" {
		if err := artifacts.CheckKey(strings.ToLower(c.Prefix)); err != nil {
			return fmt.Errorf("open store %s: prefix: %w", c, err)
		}
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
	if u.User != nil {
		return c, fmt.Errorf("open store %s: credentials do not belong into a URL: set AWS_ACCESS_KEY_ID and "+
			"AWS_SECRET_ACCESS_KEY: %w", c, artifacts.ErrInvalid)
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
	case "endpoint":
		c.Endpoint = value
	case "region":
		c.Region = value
	case "path-style":
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("open store %s: path-style=%q is neither true nor false: %w", c, value,
				artifacts.ErrInvalid)
		}
		c.PathStyle = &yes
	default:
		const known = "endpoint, path-style, region"
		return fmt.Errorf("open store %s: unknown parameter %q, want one of %s: %w", c, name, known,
			artifacts.ErrInvalid)
	}
	return nil
}
