package gates

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// world is the state that an Observer sees: questions that stay due until they
// are answered.
type world struct {
	mu      sync.Mutex
	due     []deploy.Question
	changed chan struct{}
	facts   []deploy.GateObserved
	keep    bool // questions stay due whatever is answered
	wait    time.Duration
	err     error
	looked  int
}

func (w *world) Due() ([]deploy.Question, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	return slices.Clone(w.due), w.wait
}

func (w *world) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *world) change(due ...deploy.Question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = due
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) Propose(_ context.Context, events []deploy.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		f := e.(deploy.GateObserved)
		w.facts = append(w.facts, f)
		if !w.keep {
			w.due = slices.DeleteFunc(w.due, func(q deploy.Question) bool {
				return q.Gate.Name == f.Gate &&
					q.Wave == f.Wave
			})
		}
	}
	return w.err
}

func (w *world) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, f := range w.facts {
		text := fmt.Sprintf("%s/%d/%d/%s", f.Deployment, f.Attempt, f.Wave, f.Gate)
		for _, i := range f.Items {
			text += fmt.Sprintf(" %s=%s", i.Key, i.Answer)
		}
		out = append(out, text)
	}
	return out
}

func (w *world) observe(t *testing.T) *Observer {
	w.changed = make(chan struct{})
	o := observer(t, Options{})
	o.Due, o.Changed, o.Log = w.Due, w.Changed, w
	return o
}

func always(deployment, gate, key string, wave int) deploy.Question {
	return deploy.Question{
		Deployment: deployment, Attempt: 3, Wave: wave, Key: key,
		Gate: deploy.Gate{Name: gate, Window: "daily 00:00-24:00 UTC"},
	}
}

// TestOneFactAGate: questions of one gate become one fact, and a question that
// is answered is not asked again.
func TestOneFactAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{due: []deploy.Question{
			always("d", "a", "z1", 0), always("d", "b", "", 0),
			always("d", "a", "z2", 0), always("d", "a", "z1", 1),
		}}
		o := w.observe(t)
		asked := 0
		var mu sync.Mutex
		o.Asked = func(kind deploy.GateKind, v deploy.Verdict) {
			mu.Lock()
			defer mu.Unlock()
			if asked++; kind != deploy.GateWindow || v != deploy.VerdictPass {
				t.Errorf("%s %s", kind, v)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- o.Run(ctx) }()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		got := w.seen()
		slices.Sort(got)
		if want := []string{"d/3/0/a z1=pass z2=pass", "d/3/0/b =pass", "d/3/1/a z1=pass"}; !slices.Equal(got, want) ||
			asked != 4 {
			t.Errorf("%d questions: %q", asked, got)
		}
		w.change(always("e", "new", "", 0))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.seen(); len(got) != 4 || got[3] != "e/3/0/new =pass" {
			t.Errorf("after a change: %q", got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestRefusedAnswersDoNotSpin: a question that stays due is asked once a second,
// and changes of the state by the hundred do not make more looks than ten a second.
func TestRefusedAnswersDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{due: []deploy.Question{always("d", "a", "", 0)}, keep: true}
		o := w.observe(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- o.Run(ctx) }()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			w.change(always("d", "a", "", 0))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(w.seen()); n < 9 || n > 11 {
			t.Errorf("asked %d times in 10 s", n)
		}
		if w.looked > 150 {
			t.Errorf("looked %d times in 10 s", w.looked)
		}
	})
}

// TestIdle: with nothing to come the state is looked at now and then, not in a
// circle; a wait that is given is kept.
func TestIdle(t *testing.T) {
	for wait, most := range map[time.Duration]int{0: 13, time.Millisecond: 601, 30 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{wait: wait}
			o := w.observe(t)
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			if err := o.Run(ctx); err != nil {
				t.Error(err)
			}
			if w.looked > most || w.looked < most-2 {
				t.Errorf("wait %s: looked %d times in a minute, want about %d", wait, w.looked, most)
			}
		})
	}
}

func TestLostLogEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{due: []deploy.Question{always("d", "a", "", 0)}, err: errors.New("not the leader")}
		if err := w.observe(t).Run(t.Context()); !errors.Is(err, w.err) {
			t.Errorf("%v", err)
		}
	})
}

// TestAGateThatHangsHoldsNobody: others are answered meanwhile, and Run ends at
// once when it must.
func TestAGateThatHangsHoldsNobody(t *testing.T) {
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client is gone
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	slow := always("d", "slow", "", 0)
	slow.Gate = deploy.Gate{Name: "slow", Webhook: server.URL}
	w := &world{due: []deploy.Question{slow}}
	o := w.observe(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	<-asked
	w.change(slow, always("d", "quick", "", 0))
	for end := time.Now().Add(20 * time.Second); len(w.seen()) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := w.seen(); len(got) != 1 || got[0] != "d/3/0/quick =pass" {
		t.Errorf("%q", got)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the run does not end while a webhook hangs")
	}
}

// silent is a server that answers nothing.
type silent struct{ asked chan struct{} }

func (s silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked <- struct{}{}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestAskedOnceWhileInFlight: changes of the state do not repeat a question that
// nobody has answered yet; once it is answered, it is asked again.
func TestAskedOnceWhileInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := always("d", "slow", "", 0)
		q.Gate = deploy.Gate{Name: "slow", Webhook: "http://silent.invalid"}
		w := &world{due: []deploy.Question{q}, keep: true}
		o := w.observe(t)
		asked := make(chan struct{}, 100)
		o.sources.hooks.Transport = silent{asked}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- o.Run(ctx) }()
		for second := 1; second < 15; second++ {
			time.Sleep(time.Second)
			w.change(q)
			if n := len(asked); second < 10 && n != 1 || second > 10 && n != 2 {
				t.Errorf("asked %d times after %d s", n, second)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAHostScopeOfManyEnds: a server that answers nobody does not keep a gate of
// a thousand hosts busy for a thousand timeouts.
func TestAHostScopeOfManyEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	w := &world{}
	for i := range 1000 {
		w.due = append(w.due, deploy.Question{Key: fmt.Sprint(i), Gate: deploy.Gate{Name: "slow", Webhook: server.URL}})
	}
	o := w.observe(t)
	o.timeout = 100 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- o.Run(ctx) }()
	until(t, "an answer for every host", func() string {
		if len(w.seen()) == 0 {
			return "none"
		}
		return ""
	})
	if took := time.Since(began); took > 5*time.Second { // one after the other it would be 6
		t.Errorf("took %s", took)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, i := range w.facts[0].Items {
		if i.Answer != deploy.VerdictInconclusive || i.Detail != "ask: no answer in time" || i.Key == "" {
			t.Fatalf("%+v", i)
		}
	}
}

// TestCoordinatorsAskNoProbe: what is not asked here is inconclusive.
func TestCoordinatorsAskNoProbe(t *testing.T) {
	o := observer(t, Options{})
	for _, g := range []deploy.Gate{
		{},
		{Approval: &deploy.ApprovalGate{}},
		{Query: &deploy.QueryGate{Query: "up", Max: "1"}},
		{Compare: &deploy.CompareGate{}},
	} {
		if got := o.ask(t.Context(), &deploy.Question{Gate: g}); got.Answer != deploy.VerdictInconclusive ||
			got.Detail == "" {
			t.Errorf("%s: %+v", g.Kind(), got)
		}
	}
}
