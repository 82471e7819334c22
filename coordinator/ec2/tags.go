package ec2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// tagsTimeout bounds one question, with the reading of credentials.
const tagsTimeout = 5 * time.Second

// maxAnswer bounds an answer of EC2, in bytes: 50 tags have 20 kB at most.
const maxAnswer = 256 << 10

// ReadsTags reports whether the tags of an instance are the labels of its host.
func (v *Verifier) ReadsTags() bool { return v.o.Tags }

// Tags asks EC2's API for the tags of an instance, with the credentials that the
// coordinator's own surroundings have; they need ec2:DescribeTags. Tags whose name
// begins with aws: are AWS's own and left out. It needs no SDK of the service,
// which would cost each coordinator megabytes.
func (v *Verifier) Tags(ctx context.Context, i Instance) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, tagsTimeout)
	defer cancel()
	answer, err := v.describe(ctx, i)
	if err != nil {
		return nil, unavailable{fmt.Errorf("ask EC2 for the tags of %s: %w", i.ID, err)}
	}
	var out struct {
		Tags []struct {
			Key   string `xml:"key"`
			Value string `xml:"value"`
		} `xml:"tagSet>item"`
	}
	if err := xml.Unmarshal(answer, &out); err != nil {
		return nil, unavailable{fmt.Errorf("ask EC2 for the tags of %s: read its answer: %w", i.ID, err)}
	}
	tags := map[string]string{}
	for _, t := range out.Tags {
		if !strings.HasPrefix(t.Key, "aws:") {
			tags[t.Key] = t.Value
		}
	}
	return tags, nil
}

func (v *Verifier) describe(ctx context.Context, i Instance) ([]byte, error) {
	sdk, err := config.LoadDefaultConfig(ctx, config.WithRegion(i.Region))
	if err != nil {
		return nil, err
	}
	who, err := sdk.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("this coordinator has no credentials of AWS: %w", err)
	}
	body := []byte(url.Values{
		"Action": {"DescribeTags"}, "Version": {"2016-11-15"},
		"Filter.1.Name": {"resource-id"}, "Filter.1.Value.1": {i.ID},
	}.Encode())
	at := v.o.Endpoint
	if at == "" {
		at = "https://ec2." + i.Region + ".amazonaws.com/"
		if strings.HasPrefix(i.Region, "cn-") {
			at = "https://ec2." + i.Region + ".amazonaws.com.cn/"
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, who, r, hex.EncodeToString(sum[:]), "ec2", i.Region, time.Now()); err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s: %s; its role needs ec2:DescribeTags", res.Status, code(answer))
	}
	return answer, nil
}

// code is the name of the error in an answer.
func code(answer []byte) string {
	var e struct {
		Code string `xml:"Errors>Error>Code"`
	}
	if xml.Unmarshal(answer, &e) != nil || e.Code == "" {
		return "without saying why"
	}
	return e.Code
}

// unavailable marks what may be asked again.
type unavailable struct{ error }

func (unavailable) Kind() string    { return "unavailable" }
func (u unavailable) Unwrap() error { return u.error }
