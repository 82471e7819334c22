package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// SignFunc returns a URL that reads key for a while: http(s), or file.
type SignFunc func(ctx context.Context, key string) (string, error)

// URLOpener opens objects by URLs that someone else signed, so that a host
// needs no credentials of the store. Fields must not change after the first
// call. A URL is used until the server answers 403, then signed once more.
// No error shows a URL's query: its signature is a secret.
type URLOpener struct {
	Sign SignFunc
	// Client is used as it is if set; it must bound its own waiting. nil means
	// one that gives a server 30 s to answer.
	Client *http.Client
	// Stall is how long a body may be silent before it counts as broken; 0
	// means 30 s.
	Stall time.Duration
	// Within says why nothing is fetched from a URL. It is asked of every one that is
	// signed, and, unless there is a Client, of where a server redirects to; nil allows all.
	Within func(url string) error

	mu     sync.Mutex
	urls   map[string]string
	client *http.Client
}

// errForbidden is a 403: the URL has expired, or was never good.
var errForbidden = errors.New("forbidden: the signed URL has expired, or the signer may not read the object")

// Open implements [Opener].
func (o *URLOpener) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(CheckKey(key), CheckRange(key, offset, length)); err != nil {
		return nil, err
	}
	body, err := o.open(ctx, key, offset, length, false)
	if errors.Is(err, errForbidden) {
		body, err = o.open(ctx, key, offset, length, true)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s by URL: %w", key, err)
	}
	return FullBody(body, length, "read "+key), nil
}

func (o *URLOpener) open(ctx context.Context, key string, offset, length int64, fresh bool) (io.ReadCloser, error) {
	text, err := o.url(ctx, key, fresh)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the signer returned no URL: %w", ErrInvalid) // the text may hold a signature
	}
	if o.Within != nil {
		if err := o.Within(text); err != nil {
			return nil, err
		}
	}
	switch u.Scheme {
	case "http", "https":
		return o.get(ctx, u, offset, length)
	case "file":
		return openFile(u, offset, length)
	}
	return nil, fmt.Errorf("the signer returned a URL of scheme %q, want http, https or file: %w", u.Scheme, ErrInvalid)
}

// url returns the signed URL of key, from memory unless fresh.
func (o *URLOpener) url(ctx context.Context, key string, fresh bool) (string, error) {
	o.mu.Lock()
	text, ok := o.urls[key]
	o.mu.Unlock()
	if ok && !fresh {
		return text, nil
	}
	text, err := o.Sign(ctx, key)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.urls == nil || len(o.urls) >= maxSigned {
		o.urls = map[string]string{}
	}
	o.urls[key] = text
	return text, nil
}

// maxSigned bounds the memory of signed URLs; a revision has a few packs.
const maxSigned = 1024

func openFile(u *url.URL, offset, length int64) (io.ReadCloser, error) {
	if u.Host != "" && u.Host != "localhost" {
		return nil, fmt.Errorf("file URL names host %q, want none: %w", u.Host, ErrInvalid)
	}
	f, err := os.Open(u.Path)
	if err != nil {
		return nil, err
	}
	r, err := FileRange(f, offset, length)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// FileRange returns a reader of length bytes of f from offset (-1: to the
// end) that closes f; a range that is not inside the file is an error that
// wraps io.ErrUnexpectedEOF and is permanent.
func FileRange(f *os.File, offset, length int64) (io.ReadCloser, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if length < 0 {
		length = info.Size() - offset
	}
	if length < 0 || offset > info.Size()-length {
		return nil, Permanent(fmt.Errorf("range %d+%d of %d bytes: %w", offset, length, info.Size(),
			io.ErrUnexpectedEOF))
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}, nil
}

func (o *URLOpener) get(ctx context.Context, u *url.URL, offset, length int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("the signer returned no usable URL: %w", ErrInvalid)
	}
	whole := offset == 0 && length < 0
	if !whole {
		req.Header.Set("Range", rangeHeader(offset, length))
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := o.httpClient().Do(req)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("get %s: %w", bare(u), bareError(err))
	}
	if err := checkAnswer(resp, whole, offset, length); err != nil {
		resp.Body.Close()
		cancel(nil)
		return nil, fmt.Errorf("get %s: %w", bare(u), err)
	}
	return newStallReader(ctx, cancel, resp.Body, o.stall()), nil
}

func rangeHeader(offset, length int64) string {
	if length < 0 {
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

// checkAnswer accepts the asked range only: a server that ignores Range, or
// cuts it, would hand out other bytes.
func checkAnswer(resp *http.Response, whole bool, offset, length int64) error {
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden:
		return Permanent(errForbidden)
	case code == http.StatusNotFound:
		return ErrNotFound
	case code == http.StatusRequestedRangeNotSatisfiable:
		return Permanent(fmt.Errorf("range %d+%d: %w", offset, length, io.ErrUnexpectedEOF))
	case whole && code == http.StatusOK:
		return nil
	case whole || code != http.StatusPartialContent:
		return badStatus(resp)
	}
	got := resp.Header.Get("Content-Range")
	if !strings.HasPrefix(got, wantRange(offset, length)) {
		return fmt.Errorf("asked for range %d+%d, got %q: %w", offset, length, got, io.ErrUnexpectedEOF)
	}
	return nil
}

func wantRange(offset, length int64) string {
	if length < 0 {
		return fmt.Sprintf("bytes %d-", offset)
	}
	return fmt.Sprintf("bytes %d-%d/", offset, offset+length-1)
}

func badStatus(resp *http.Response) error {
	err := fmt.Errorf("the server answered %s", resp.Status)
	transient := resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests ||
		resp.StatusCode == http.StatusRequestTimeout
	if transient {
		return err
	}
	return Permanent(err)
}

// bare is u without what must stay secret.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// bareError drops the URL that net/http puts in front of an error.
func bareError(err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

func (o *URLOpener) stall() time.Duration {
	if o.Stall > 0 {
		return o.Stall
	}
	return 30 * time.Second
}

func (o *URLOpener) httpClient() *http.Client {
	if o.Client != nil {
		return o.Client
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = 30 * time.Second
		t.MaxIdleConnsPerHost = 8
		t.DisableCompression = true
		o.client = &http.Client{Transport: t, CheckRedirect: o.redirect}
	}
	return o.client
}

// redirect lets a server send elsewhere what may be fetched there.
func (o *URLOpener) redirect(req *http.Request, via []*http.Request) error {
	if err := sameScheme(req, via); err != nil || o.Within == nil {
		return err
	}
	return o.Within(req.URL.String())
}

// sameScheme lets a redirect change the host, as S3 does between regions,
// but not the scheme: https must not become http, nor anything a file.
func sameScheme(req *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return Permanent(errors.New("more than 3 redirects"))
	}
	if req.URL.Scheme != via[0].URL.Scheme {
		return Permanent(fmt.Errorf("redirect from %s to %s", via[0].URL.Scheme, req.URL.Scheme))
	}
	return nil
}
