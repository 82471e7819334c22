package gates

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

func TestWhomAWebhookMayBe(t *testing.T) {
	list := []string{"ci.example", "10.0.0.5:8443"}
	for hook, may := range map[string]bool{
		"https://ci.example/x": true, "https://CI.example:9/x": true, "http://10.0.0.5:8443/": true,
		"http://10.0.0.5/": false, "https://ci.example.evil/": false, "https://evil/?ci.example": false,
		"https://ci.example@evil/": false, "http://evil/ci.example": false, "http://xci.example/": false,
	} {
		if err := mayAsk(list, hook); (err == nil) != may {
			t.Errorf("%s: %v", hook, err)
		}
		if err := mayAsk(nil, hook); err != nil {
			t.Errorf("%s without a list: %v", hook, err)
		}
	}
	for _, bad := range []string{"http://ci.example", "ci.example/x", "", "a b", "u@h"} {
		if _, err := New(Options{Webhooks: []string{bad}}); err == nil {
			t.Errorf("%q is taken for a host", bad)
		}
	}
}

// TestNothingOfTheLinkIsAsked: by address, by whatever a name resolves to.
func TestNothingOfTheLinkIsAsked(t *testing.T) {
	for address, local := range map[string]bool{
		"169.254.169.254:80": true, "[fe80::1%eth0]:80": true, "[fd00:ec2::254]:80": true,
		"[::ffff:169.254.169.254]:80": true,
		"224.0.0.1:80":                true, "10.0.0.1:80": false, "[2001:db8::1]:443": false, "127.0.0.1:80": false,
	} {
		if err := notLocal("tcp", address, nil); errors.Is(err, errLocal) != local {
			t.Errorf("%s: %v", address, err)
		}
	}
	o := observer(t, Options{})
	var out deploy.Observation
	err := o.sources.webhook(t.Context(), hookQuestionTo("http://169.254.169.254/latest/meta-data/"), &out)
	if !errors.Is(err, errLocal) {
		t.Errorf("the machine's metadata: %v", err)
	}
}

// TestAServerThatIsNotListedIsNotAsked: the gate stays open, and says why.
func TestAServerThatIsNotListedIsNotAsked(t *testing.T) {
	asked := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer asked.Close()
	o := observer(t, Options{Webhooks: []string{"ci.example"}})
	var out deploy.Observation
	if err := o.sources.webhook(context.Background(), hookQuestionTo(asked.URL), &out); err == nil {
		t.Error("a server that is not listed")
	}
}
