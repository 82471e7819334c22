package gates

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
)

// Options say whom to ask. The zero value asks windows and unsigned webhooks.
type Options struct {
	Prometheus string // URL of the server; "" is none
	// SecretFile holds the secret that signs the questions to webhooks; "" leaves
	// them unsigned. It is read once.
	SecretFile string
	// Webhooks are the hosts, with or without a port, that webhooks may be at;
	// empty is any but those of the link.
	Webhooks []string
}

// sources are the servers that gates are asked of.
type sources struct {
	prometheus prometheus.API // nil is none
	hooks      *http.Client
	allowed    []string // hosts of webhooks, empty for any
	secret     []byte
}

// Bounds of what a server may say.
const (
	maxSeries = 32 << 20 // bytes of an answer of Prometheus
	maxHook   = 64 << 10 // of a webhook
)

func newSources(o Options) (sources, error) {
	s := sources{
		hooks:   &http.Client{Transport: bounded{distant(), maxHook}, CheckRedirect: sameServer},
		allowed: o.Webhooks,
	}
	if err := checkHooks(o.Webhooks); err != nil {
		return s, err
	}
	if o.SecretFile != "" {
		b, err := os.ReadFile(o.SecretFile)
		if err != nil {
			return s, fmt.Errorf("gates: webhookSecretFile: %w", err)
		}
		if s.secret = []byte(strings.TrimSpace(string(b))); len(s.secret) < 16 {
			return s, fmt.Errorf("gates: webhookSecretFile %s holds %d bytes; write a secret of at least 16",
				o.SecretFile, len(s.secret))
		}
	}
	if o.Prometheus == "" {
		return s, nil
	}
	if err := checkURL(o.Prometheus); err != nil {
		return s, fmt.Errorf("gates: prometheus %w", err)
	}
	client, err := api.NewClient(api.Config{
		Address: o.Prometheus,
		Client:  &http.Client{Transport: bounded{http.DefaultTransport, maxSeries}, CheckRedirect: sameServer},
	})
	if err != nil {
		return s, fmt.Errorf("gates: prometheus: %w", err)
	}
	s.prometheus = prometheus.NewAPI(client)
	return s, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is no URL; write for instance http://prometheus.example:9090", text)
	case u.User != nil:
		return fmt.Errorf("%q holds credentials, which logs would show; remove them", u.Redacted())
	}
	return nil
}

// sameServer follows a redirect only to the same server, and only if the
// question stays what it is.
func sameServer(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host:
		return fmt.Errorf("it redirects to another server, %s://%s", req.URL.Scheme, req.URL.Host)
	case req.Method != first.Method:
		return errors.New("it redirects and drops the question")
	case len(via) > 3:
		return errors.New("it redirects without end")
	}
	return nil
}

// bounded refuses answers that are too long to be one.
type bounded struct {
	next  http.RoundTripper
	bytes int64
}

// RoundTrip passes a request on.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: b.bytes, most: b.bytes}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left, most int64
}

// Read reads up to the bound.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("the answer is longer than %d bytes", b.most)
	}
	return n, err
}

// tidy makes one printable line of what a server said, of at most that many
// bytes: it is kept in the log and shown on terminals.
func tidy(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…"
	}
	return strings.TrimSpace(text)
}
