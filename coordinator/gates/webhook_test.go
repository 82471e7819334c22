package gates

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

func observer(t *testing.T, o Options) *Observer {
	t.Helper()
	out, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func hookQuestionTo(url string) *deploy.Question {
	return &deploy.Question{
		Deployment: "d1", Attempt: 2, Wave: 1, WaveName: "canary", App: "www", Group: "prod", Revision: "v2", Base: "v1",
		Key: "z1", Zone: "z1", Candidates: []string{"h1", "h2"}, Since: 5,
		Gate: deploy.Gate{Name: "tests", Webhook: url},
	}
}

func TestWebhookAnswers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a question went to another server")
	}))
	defer elsewhere.Close()
	release := make(chan struct{})
	mux := http.NewServeMux()
	say := func(path string, status int, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	say("/pass", 200, `{"answer":"pass","value":0.5,"detail":"all green"}`)
	say("/fail", 200, `{"answer":"fail","value":"7 of 9","detail":"two tests\u001b[31m failed"}`)
	say("/open", 200, `{"answer":"inconclusive"}`)
	say("/bare", 200, "")
	say("/accepted", 202, "")
	say("/accepted-body", 202, `{"answer":"pass"}`)
	say("/conflict", 409, "no\nthanks")
	say("/word", 200, `{"answer":"yes"}`)
	say("/garbage", 200, "<html>\x00\xff")
	say("/list", 200, `["pass"]`)
	say("/missing", 404, "not here")
	say("/broken", 500, "oops")
	say("/huge", 200, `{"answer":"pass","detail":"`+strings.Repeat("x", 80<<10)+`"}`)
	say("/long", 200, `{"answer":"pass","detail":"`+strings.Repeat("é", 2<<10)+`"}`)
	mux.Handle("/moved", http.RedirectHandler("/pass", http.StatusTemporaryRedirect))
	mux.Handle("/dropped", http.RedirectHandler("/pass", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	mux.Handle("/circle", http.RedirectHandler("/circle", http.StatusTemporaryRedirect))
	mux.HandleFunc("/hangs", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/stalls", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"answer":`)
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	mux.HandleFunc("/hangs-up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	server := httptest.NewServer(mux)
	defer server.Close()

	o := observer(t, Options{})
	for _, c := range []struct {
		path          string
		want          deploy.Verdict
		value, detail string
	}{
		{"/pass", "pass", "0.5", "all green"},
		{"/fail", "fail", "7 of 9", "two tests [31m failed"},
		{"/open", "inconclusive", "status 200", ""},
		{"/bare", "pass", "status 200", ""},
		{"/accepted", "pass", "status 202", ""},
		{"/accepted-body", "inconclusive", "status 202", "an answer with a body has status 200"},
		{"/conflict", "fail", "status 409", "no thanks"},
		{"/word", "inconclusive", "status 200", `"yes"; use pass, fail or inconclusive`},
		{"/garbage", "inconclusive", "status 200", "no JSON object"},
		{"/list", "inconclusive", "status 200", "no JSON object"},
		{"/missing", "inconclusive", "status 404", "not here"},
		{"/broken", "inconclusive", "status 500", "oops"},
		{"/huge", "inconclusive", "", "longer than 65536 bytes"},
		{"/long", "pass", "status 200", "éé…"},
		{"/moved", "pass", "0.5", "all green"},
		{"/dropped", "inconclusive", "", "drops the question"},
		{"/away", "inconclusive", "", "redirects to another server"},
		{"/circle", "inconclusive", "", "redirects without end"},
		{"/hangs", "inconclusive", "", "no answer in time"},
		{"/stalls", "inconclusive", "", "no answer in time"},
		{"/hangs-up", "inconclusive", "", "EOF"},
	} {
		o.timeout = askTimeout
		if strings.HasPrefix(c.path, "/hangs") || c.path == "/stalls" {
			o.timeout = 200 * time.Millisecond
		}
		got := o.ask(t.Context(), hookQuestionTo(server.URL+c.path))
		if got.Answer != c.want || got.Value != c.value || !strings.Contains(got.Detail, c.detail) ||
			len(got.Detail) > 512 {
			t.Errorf("%s: %+v", c.path, got)
		}
		if got.Key != "z1" || got.From != 5 || got.To == 0 || got.Question != "POST "+server.URL+c.path {
			t.Errorf("%s: evidence %+v", c.path, got)
		}
	}
	close(release)
	server.Close()
	if got := o.ask(t.Context(), hookQuestionTo(server.URL)); got.Answer != deploy.VerdictInconclusive ||
		!strings.Contains(got.Detail, "refused") {
		t.Errorf("nobody listens: %+v", got)
	}
}

func TestWebhookIsSigned(t *testing.T) {
	const secret = "0123456789abcdef-secret"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		var q map[string]any
		if err := json.Unmarshal(body, &q); err != nil {
			t.Error(err)
		}
		signed := r.Header.Get(SignatureHeader) == "sha256="+hex.EncodeToString(mac.Sum(nil))
		want := `d1 www prod canary tests v2 v1 z1 [h1 h2] 5`
		if got := fmt.Sprint(q["deployment"], " ", q["app"], " ", q["group"], " ", q["wave"], " ", q["gate"], " ",
			q["revision"], " ",
			q["base"], " ", q["key"], " ", q["hosts"], " ", q["since"]); got != want || !signed ||
			r.Method != http.MethodPost {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, signed, " ", got)
		}
		if strings.Contains(string(body), secret) {
			t.Error("the secret travels")
		}
	}))
	defer server.Close()
	if got := observer(t, Options{SecretFile: file}).ask(t.Context(),
		hookQuestionTo(server.URL)); got.Answer != deploy.VerdictPass {
		t.Errorf("%+v", got)
	}
	if got := observer(t, Options{}).ask(t.Context(), hookQuestionTo(server.URL)); got.Answer != deploy.VerdictFail {
		t.Errorf("without a secret: %+v", got)
	}
}

func TestOptions(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"is no URL":         {Prometheus: "prometheus:9090"},
		"holds credentials": {Prometheus: "http://me:pw@prometheus:9090"},
		"no such file":      {SecretFile: "/nonexistent"},
		"at least 16":       {SecretFile: empty},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
