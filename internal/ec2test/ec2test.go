// Package ec2test stands for AWS in tests, where nobody can be at AWS: it signs
// identity documents, and answers as an instance's metadata service and as EC2's
// API do.
package ec2test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

// Signer signs documents as AWS does in one region.
type Signer struct {
	t    testing.TB
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// New makes a signer whose certificate is valid for a time. The library signs at
// the time of this machine, which must lie within.
func New(t testing.TB, begins, ends time.Time) *Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"a region"}},
		NotBefore: begins, NotAfter: ends,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{t: t, cert: cert, key: key}
}

// File returns a PEM file with the certificates of signers.
func File(t testing.TB, all ...*Signer) string {
	t.Helper()
	var data []byte
	for _, s := range all {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})...)
	}
	path := filepath.Join(t.TempDir(), "aws.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Sign makes a document; how changes what is signed and how. The signer's
// certificate lies in it, as it does not at AWS: it is to count for nothing.
func (s *Signer) Sign(content string, how ...func(*pkcs7.SignedData)) []byte {
	s.t.Helper()
	d, err := pkcs7.NewSignedData([]byte(content))
	if err != nil {
		s.t.Fatal(err)
	}
	d.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	for _, f := range how {
		f(d)
	}
	s.Add(d)
	der, err := d.Finish()
	if err != nil {
		s.t.Fatal(err)
	}
	return Lines(der)
}

// Add adds the signature of this signer.
func (s *Signer) Add(d *pkcs7.SignedData) {
	s.t.Helper()
	if err := d.AddSigner(s.cert, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		s.t.Fatal(err)
	}
}

// Lines is base64 in lines of 64, as the metadata service has it.
func Lines(der []byte) (out []byte) {
	text := base64.StdEncoding.EncodeToString(der)
	for len(text) > 64 {
		out, text = append(out, text[:64]+"\n"...), text[64:]
	}
	return append(out, text...)
}

// Document is one as AWS writes it, of an instance that was started at a time, with
// some values replaced.
func Document(started time.Time, changes map[string]string) string {
	values := map[string]string{
		"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "eu-west-1b",
		"imageId": "ami-5fb8c835", "instanceId": "i-0123456789abcdef0", "instanceType": "t3.micro",
		"pendingTime": started.UTC().Format(time.RFC3339), "privateIp": "10.158.112.84", "region": "eu-west-1",
		"version": "2017-09-30",
	}
	maps.Copy(values, changes)
	out := []string{`"billingProducts" : null`}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, fmt.Sprintf("%q : %q", k, values[k]))
	}
	return "{\n  " + strings.Join(out, ",\n  ") + "\n}"
}

// Metadata serves an instance's metadata by IMDSv2 and returns its URL: the
// document, and the paths below meta-data.
func Metadata(t testing.TB, document []byte, paths map[string]string) string {
	const token = "token of the metadata service"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, isData := strings.CutPrefix(r.URL.Path, "/latest/meta-data/")
		value, known := paths[path]
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			fmt.Fprint(w, token)
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/latest/dynamic/instance-identity/rsa2048":
			_, _ = w.Write(document)
		case isData && known:
			fmt.Fprint(w, value)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// API answers DescribeTags of EC2 by what tags says of an instance, nil refuses, and
// returns its URL. Who asks must have signed for EC2 of the region.
func API(t testing.TB, tags func(instance string) map[string]string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, _ := url.ParseQuery(string(body))
		answer := tags(q.Get("Filter.1.Value.1"))
		if answer == nil || q.Get("Action") != "DescribeTags" || q.Get("Filter.1.Name") != "resource-id" ||
			!strings.Contains(r.Header.Get("Authorization"), "/ec2/aws4_request") {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>`)
			return
		}
		fmt.Fprint(w, `<DescribeTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><tagSet>`)
		for k, v := range answer {
			fmt.Fprintf(w, "<item><key>%s</key><value>%s</value></item>\n", html.EscapeString(k), html.EscapeString(v))
		}
		fmt.Fprint(w, `</tagSet></DescribeTagsResponse>`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
