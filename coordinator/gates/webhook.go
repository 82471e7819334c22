package gates

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// SignatureHeader carries "sha256=" and the hexadecimal HMAC-SHA256 of the body
// under the secret of the coordinator's configuration.
const SignatureHeader = "X-Groundswell-Signature"

// hookQuestion is the body that a webhook gets. Times are Unix milliseconds.
type hookQuestion struct {
	Deployment string   `json:"deployment"`
	Attempt    int      `json:"attempt"`
	App        string   `json:"app"`
	Group      string   `json:"group"`
	Wave       string   `json:"wave"`
	Gate       string   `json:"gate"`
	Revision   string   `json:"revision"`
	Base       string   `json:"base"`
	Key        string   `json:"key"` // zone or host id, for a gate of that scope
	Host       string   `json:"host,omitempty"`
	Zone       string   `json:"zone,omitempty"`
	Hosts      []string `json:"hosts"` // that run the revision
	Since      int64    `json:"since"` // evidence from before is void
	Asked      int64    `json:"asked"`
}

// hookAnswer is the body of an answer with status 200.
type hookAnswer struct {
	Answer deploy.Verdict  `json:"answer"`
	Value  json.RawMessage `json:"value"`
	Detail string          `json:"detail"`
}

// webhook posts the question. An answer of 200 says pass, fail or inconclusive;
// any 2xx without a body is a pass, 409 a fail, and everything else
// inconclusive.
func (s *sources) webhook(ctx context.Context, q *deploy.Question, out *deploy.Observation) error {
	out.Question = "POST " + q.Gate.Webhook
	if err := mayAsk(s.allowed, q.Gate.Webhook); err != nil {
		return err
	}
	body, err := json.Marshal(hookQuestion{
		Deployment: q.Deployment, Attempt: q.Attempt, App: q.App, Group: q.Group, Wave: q.WaveName, Gate: q.Gate.Name,
		Revision: q.Revision, Base: q.Base, Key: q.Key, Host: q.Host, Zone: q.Zone, Hosts: q.Candidates,
		Since: q.Since, Asked: out.To,
	})
	if err != nil {
		return fmt.Errorf("write the question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.Gate.Webhook, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if len(s.secret) > 0 {
		mac := hmac.New(sha256.New, s.secret)
		mac.Write(body)
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := s.hooks.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", reason(err))
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer, %s: %w", resp.Status, reason(err))
	}
	return readAnswer(resp.StatusCode, said, out)
}

func readAnswer(status int, said []byte, out *deploy.Observation) error {
	said = bytes.TrimSpace(said)
	out.Threshold = "200 with answer pass, or 2xx without a body"
	out.Value = fmt.Sprint("status ", status)
	switch {
	case status == http.StatusConflict:
		out.Answer, out.Detail = deploy.VerdictFail, string(said)
		return nil
	case status/100 != 2:
		return fmt.Errorf("answers with status %d: %s", status, said)
	case len(said) == 0:
		out.Answer = deploy.VerdictPass
		return nil
	case status != http.StatusOK:
		return fmt.Errorf("answers with status %d and a body; an answer with a body has status 200", status)
	}
	var a hookAnswer
	if err := json.Unmarshal(said, &a); err != nil {
		return fmt.Errorf("the answer is no JSON object of answer, value and detail: %w", err)
	}
	switch a.Answer {
	case deploy.VerdictPass, deploy.VerdictFail, deploy.VerdictInconclusive:
		out.Answer, out.Detail = a.Answer, a.Detail
	default:
		return fmt.Errorf("the answer is %q; use pass, fail or inconclusive", a.Answer)
	}
	if len(a.Value) > 0 && string(a.Value) != "null" {
		out.Value = strings.Trim(string(a.Value), `"`)
	}
	return nil
}

// reason shortens an error of an HTTP client: the URL stands beside it anyway.
func reason(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
