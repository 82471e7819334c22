// Package discover finds out what the surroundings of a host know about it:
// today what an EC2 instance is, where it is, and its tags, as labels.
package discover

import (
	"cmp"
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
	ctx, cancel, c := o.client(ctx)
	defer cancel()
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

// client speaks IMDSv2 alone.
func (o EC2Options) client(ctx context.Context) (context.Context, context.CancelFunc, *imds.Client) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Timeout, 10*time.Second))
	return ctx, cancel, imds.New(imds.Options{
		Endpoint: o.Endpoint, ClientEnableState: imds.ClientEnabled,
		EnableFallback: aws.FalseTernary,
	})
}

// EC2Document returns the identity document of the instance that this process runs
// on, PKCS #7 in base64, signed by AWS with RSA of 2048 bits.
func EC2Document(ctx context.Context, o EC2Options) ([]byte, error) {
	ctx, cancel, c := o.client(ctx)
	defer cancel()
	out, err := c.GetDynamicData(ctx, &imds.GetDynamicDataInput{Path: "instance-identity/rsa2048"})
	if err != nil {
		return nil, fmt.Errorf("read the identity document of this EC2 instance from its metadata service: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(out.Content, maxDocument))
	if err = errors.Join(err, out.Content.Close()); err != nil {
		return nil, fmt.Errorf("read the identity document of this EC2 instance: %w", err)
	}
	return data, nil
}

// maxDocument bounds a document, in bytes; the real thing has 2 kB.
const maxDocument = 8 << 10

// EC2Zone returns the availability zone of the instance, and its region.
func EC2Zone(ctx context.Context, o EC2Options) (zone, region string, err error) {
	ctx, cancel, c := o.client(ctx)
	defer cancel()
	zone, err = metadata(ctx, c, "placement/availability-zone")
	if err == nil {
		region, err = metadata(ctx, c, "placement/region")
	}
	if err != nil {
		return "", "", fmt.Errorf("read the zone of this EC2 instance from its metadata service: %w", err)
	}
	return zone, region, nil
}

func metadata(ctx context.Context, c *imds.Client, path string) (string, error) {
	out, err := c.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(out.Content, maxTags*maxTag))
	return string(data), errors.Join(err, out.Content.Close())
}
