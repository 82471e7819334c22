package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/groundswell/groundswell/hooks"
)

// maxBody is how much of a body is searched, in bytes.
const maxBody = 1 << 20

func askHTTP(ctx context.Context, p Probe) (Answer, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.HTTP, nil)
	if err != nil {
		return AnswerUnknown, fmt.Sprintf("the URL cannot be used: %v", err)
	}
	req.Header.Set("User-Agent", "groundswell-probe")
	// A connection of its own each time: a kept one would hide a listener
	// that is gone. No proxy: the question is for the application itself.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	var whole *url.Error
	if errors.As(err, &whole) {
		return refusal(whole.Err) // whoever tells of it names the URL
	}
	if err != nil {
		return refusal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != p.Expect {
		return AnswerUnhealthy, fmt.Sprintf("status %d, want %d", resp.StatusCode, p.Expect)
	}
	if p.Contains == "" {
		return AnswerHealthy, fmt.Sprintf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case strings.Contains(string(body), p.Contains):
		return AnswerHealthy, fmt.Sprintf("status %d, body contains %q", resp.StatusCode, p.Contains)
	case err != nil:
		return AnswerUnhealthy, fmt.Sprintf("status %d, body breaks off: %v", resp.StatusCode, err)
	}
	return AnswerUnhealthy, fmt.Sprintf("status %d, body (%d bytes) lacks %q", resp.StatusCode, len(body), p.Contains)
}

func askTCP(ctx context.Context, p Probe) (Answer, string) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.TCP)
	if err != nil {
		return refusal(err)
	}
	_ = conn.Close()
	return AnswerHealthy, "connected to " + p.TCP
}

// refusal tells an application that does not answer from a question that was
// never put, such as a name that does not resolve. No answer in time is the
// former: users of the application would not get one either.
func refusal(err error) (Answer, string) {
	var dns *net.DNSError
	var addr *net.AddrError
	if errors.As(err, &dns) || errors.As(err, &addr) {
		return AnswerUnknown, err.Error()
	}
	return AnswerUnhealthy, err.Error()
}

// askCommand runs the script under a supervisor, which ends it and all it
// started at the timeout; the end of ctx ends it too.
func (r Prober) askCommand(ctx context.Context, p Probe, t Target, n int) (Answer, string) {
	if r.Commands == nil {
		return AnswerUnknown, "this agent runs no command probes"
	}
	env := t.Env
	env.ID = fmt.Sprintf("%s.p%d", env.ID, n)
	res := r.Commands.Run(ctx, hooks.Script{Location: p.Command, Timeout: p.Timeout}, env)
	if res.Detached {
		return AnswerUnknown, stopped(r.Commands.Stop(env.ID))
	}
	switch res.Code {
	case hooks.CodeSuccess:
		return AnswerHealthy, res.Message
	case hooks.CodeFailed, hooks.CodeTimedOut:
		return AnswerUnhealthy, said(p, res)
	case hooks.CodeMissing, hooks.CodeNotExecutable, hooks.CodeOther, hooks.CodeOutputsOpen, hooks.CodeRestart:
	}
	return AnswerUnknown, res.Message
}

// said is how a script failed, with its own last word; evidence names it already.
func said(p Probe, res hooks.Result) string {
	text := strings.TrimPrefix(res.Message, "script "+p.Command+" ")
	if last := res.LastLine(); last != "" {
		text += ": " + last
	}
	return text
}

func stopped(err error) string {
	if err != nil {
		return fmt.Sprintf("the probe was called off, its command goes on: %v", err)
	}
	return "the probe was called off"
}
