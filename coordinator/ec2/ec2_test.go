package ec2_test

import (
	"context"
	"encoding/asn1"
	"encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/groundswell/groundswell/coordinator/ec2"
	"github.com/groundswell/groundswell/internal/ec2test"
)

// The library signs at the time of this machine, which certificates must hold
// with; one that ends does so after it.
var (
	now   = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	later = now.AddDate(100, 0, 0)
	ends  = now.AddDate(50, 0, 0)
)

// started is when the instance of the documents was.
var started = now.Add(-5 * time.Minute)

func newSigner(t testing.TB, ends time.Time) *ec2test.Signer {
	return ec2test.New(t, now.AddDate(-1, 0, 0), ends)
}

func document(changes map[string]string) string { return ec2test.Document(started, changes) }

func TestWhoseDocument(t *testing.T) {
	aws, other, ended := newSigner(t, later), newSigner(t, later), newSigner(t, ends)
	o := ec2.Options{
		Accounts: []string{"123456789012"}, Regions: []string{"eu-west-1"},
		Certificates: ec2test.File(t, newSigner(t, later), aws, ended),
	}
	v, err := ec2.New(o)
	if err != nil {
		t.Fatal(err)
	}
	good := aws.Sign(document(nil))
	i, err := v.Verify(good, now)
	want := ec2.Instance{
		ID: "i-0123456789abcdef0", Account: "123456789012", Region: "eu-west-1", Zone: "eu-west-1b",
		Started: now.Add(-5 * time.Minute),
	}
	if err != nil || i != want || i.Origin() != "aws/123456789012/eu-west-1/i-0123456789abcdef0" {
		t.Fatalf("%+v, %v", i, err)
	}

	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(good), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(der), "i-0123456789abcdef0", "i-0123456789abcdef1", 1)
	twice := aws.Sign(document(nil), func(d *pkcs7.SignedData) {
		aws.Add(d)
	})
	for what, c := range map[string]struct {
		document []byte
		now      time.Time
		text     string
	}{
		"signed by somebody, whose certificate lies in it": {
			other.Sign(document(nil)), now,
			"not signed by a certificate",
		},
		"another instance written into it": {ec2test.Lines([]byte(changed)), now, "not signed by"},
		"a certificate that has ended":     {ended.Sign(document(map[string]string{"pendingTime": ends.Format(time.RFC3339)})), ends.Add(time.Minute), "not signed by"},
		"a weak digest": {
			aws.Sign(document(nil), func(d *pkcs7.SignedData) { d.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1) }),
			now, "takes SHA-256",
		},
		"two signatures":  {twice, now, "2 signatures"},
		"another account": {aws.Sign(document(map[string]string{"accountId": "123456789013"})), now, "ec2.accounts"},
		"another region": {
			aws.Sign(document(map[string]string{
				"region":           "us-east-1",
				"availabilityZone": "us-east-1a",
			})), now, "ec2.regions",
		},
		"a zone of another region": {
			aws.Sign(document(map[string]string{"availabilityZone": "us-east-1a"})), now,
			"no instance",
		},
		"no instance": {
			aws.Sign(document(map[string]string{"instanceId": "../i-1"})), now,
			"is no instance",
		},
		"too old":        {good, now.Add(time.Hour - time.Minute), "was started 1h4m0s ago"},
		"a clock behind": {good, now.Add(-time.Hour), "in the future"},
		"no time":        {aws.Sign(document(map[string]string{"pendingTime": "soon"})), now, "pendingTime"},
		"no JSON":        {aws.Sign("hello"), now, "read the identity document"},
		"no PKCS 7":      {[]byte("aGVsbG8="), now, "PKCS #7"},
		"no base64":      {[]byte("***"), now, "base64"},
		"nothing":        {nil, now, "PKCS #7"},
		"too long":       {make([]byte, ec2.MaxDocument+1), now, "longer than"},
	} {
		if i, err := v.Verify(c.document, c.now); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %+v, %v", what, i, err)
		}
	}
	o.Instances = []string{"i-0fffffffffffffff0"}
	if v, err = ec2.New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(good, now); err == nil || !strings.Contains(err.Error(), "ec2.instances") {
		t.Errorf("an instance that is not listed: %v", err)
	}
	if v, err = ec2.New(ec2.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(good, now); err == nil ||
		!strings.Contains(err.Error(), "no instance of EC2 joins this cluster") {
		t.Errorf("a cluster that lets none in: %v", err)
	}
}

func TestOptionsNameTheKey(t *testing.T) {
	certs := ec2test.File(t, newSigner(t, later))
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for key, o := range map[string]ec2.Options{
		"ec2.accounts: whose": {Tags: true},
		"ec2.accounts: \"12":  {Accounts: []string{"12"}, Certificates: certs},
		"ec2.regions":         {Accounts: []string{"123456789012"}, Regions: []string{"Ireland"}, Certificates: certs},
		"ec2.instances":       {Accounts: []string{"123456789012"}, Instances: []string{"web-1"}, Certificates: certs},
		"ec2.within":          {Accounts: []string{"123456789012"}, Within: -1, Certificates: certs},
		"ec2.certificates: a": {Accounts: []string{"123456789012"}},
		"no certificate":      {Accounts: []string{"123456789012"}, Certificates: empty},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// The tags come from AWS, asked with the coordinator's own credentials.
func TestTags(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	all := map[string]string{"role": "web", "Name": "web 1", "aws:autoscaling:groupName": "www", "odd": `<&"`}
	api := ec2test.API(t, func(instance string) map[string]string {
		if instance != "i-0123456789abcdef0" {
			return nil
		}
		return all
	})
	v, err := ec2.New(ec2.Options{
		Accounts: []string{"123456789012"}, Certificates: ec2test.File(t,
			newSigner(t, later)), Tags: true, Endpoint: api,
	})
	if err != nil {
		t.Fatal(err)
	}
	i := ec2.Instance{ID: "i-0123456789abcdef0", Region: "eu-west-1"}
	tags, err := v.Tags(t.Context(), i)
	if err != nil || !maps.Equal(tags, map[string]string{"role": "web", "Name": "web 1", "odd": `<&"`}) {
		t.Errorf("%v, %v", tags, err)
	}
	all = nil
	if _, err := v.Tags(t.Context(), i); err == nil || !strings.Contains(err.Error(), "UnauthorizedOperation") ||
		!strings.Contains(err.Error(), "ec2:DescribeTags") {
		t.Errorf("refused: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var k interface{ Kind() string }
	if _, err := v.Tags(ended, i); err == nil {
		t.Error("answered though nobody waits")
	} else if k, _ = err.(interface{ Kind() string }); k == nil || k.Kind() != "unavailable" {
		t.Errorf("not to be asked again: %v", err)
	}
}

// An object that reaches out of the one around it is read again at each level by the
// parser: a hundred bytes took seconds and a gigabyte.
func TestDocumentsThatReachOut(t *testing.T) {
	v, err := ec2.New(ec2.Options{
		Accounts:     []string{"123456789012"},
		Certificates: ec2test.File(t, newSigner(t, later)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var bomb []byte
	for range 1000 {
		bomb = append(bomb, 0x30, 0x84, 0x00, 0x00, 0x10, 0x00)
	}
	for _, der := range [][]byte{bomb, bomb[:120], {0x30, 0x80}, {0x30, 0x02, 0x30, 0x05}, {0x1f, 0x01}} {
		if _, err := v.Verify(ec2test.Lines(der), now); err == nil || !strings.Contains(err.Error(), "PKCS #7") {
			t.Errorf("%x: %v", der[:2], err)
		}
	}
}

// Whatever a stranger sends ends in an answer.
func FuzzDocument(f *testing.F) {
	aws := newSigner(f, later)
	v, err := ec2.New(ec2.Options{Accounts: []string{"123456789012"}, Certificates: ec2test.File(f, aws)})
	if err != nil {
		f.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(aws.Sign(document(nil))), "\n", ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	indefinite, _ := asn1.Marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: der})
	f.Add(indefinite)
	f.Add([]byte{0x30, 0x80, 0x30, 0x80, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		if i, err := v.Verify(ec2test.Lines(der), now); err == nil && i.ID != "i-0123456789abcdef0" {
			t.Errorf("let %+v in", i)
		}
	})
}
