// Package discover finds out what the surroundings of a host know about it:
// today the tags of an EC2 instance, as labels.
package discover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// EC2Options says where the metadata service is. The zero value is that of an
// instance.
type EC2Options struct {
	// Endpoint is the service's URL; default http://169.254.169.254.
	Endpoint string
	// Timeout bounds the whole question. Default 10 s.
	Timeout time.Duration
}

// maxTags bounds what is read: an instance has at most 50 tags of its own.
const maxTags = 256

// maxTag bounds one answer, in bytes: a tag's value has at most 256 characters.
const maxTag = 4 << 10

// EC2Tags returns the tags of the instance that this process runs on. It speaks
// IMDSv2 alone: without a session token nothing is asked. Tags must be let into
// the metadata of the instance; the error says how.
func EC2Tags(ctx context.Context, o EC2Options) (map[string]string, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c := imds.New(imds.Options{
		Endpoint: o.Endpoint, ClientEnableState: imds.ClientEnabled,
		EnableFallback: aws.FalseTernary,
	})
	names, err := metadata(ctx, c, "tags/instance")
	var status *smithyhttp.ResponseError
	if errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound {
		return nil, fmt.Errorf("read the tags of this EC2 instance: its metadata has none; let them in with `aws ec2 "+
			"modify-instance-metadata-options --instance-metadata-tags enabled --instance-id …`: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the tags of this EC2 instance from its metadata service: %w", err)
	}
	tags := map[string]string{}
	for name := range strings.Lines(names) {
		if name = strings.TrimRight(name, "\n"); name == "" {
			continue
		}
		if len(tags) == maxTags {
			return nil, fmt.Errorf("read the tags of this EC2 instance: more than %d of them", maxTags)
		}
		if tags[name], err = metadata(ctx, c, "tags/instance/"+name); err != nil {
			return nil, fmt.Errorf("read tag %q of this EC2 instance: %w", name, err)
		}
	}
	return tags, nil
}

func metadata(ctx context.Context, c *imds.Client, path string) (string, error) {
	out, err := c.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(out.Content, maxTags*maxTag))
	return string(data), errors.Join(err, out.Content.Close())
}
