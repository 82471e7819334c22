package devfleet

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// balancer sends requests to the hosts whose health check passes, as a load
// balancer does, and counts those that fail.
type balancer struct {
	client   *http.Client
	quit     chan struct{}
	running  sync.WaitGroup
	requests atomic.Int64
	failures atomic.Int64
	example  atomic.Value // string: the first failure
}

// How often a host is checked, and how many requests each healthy one gets
// between two checks. A host may fail its check for at least this long before
// it stops: that is what the example's ApplicationStop waits for.
const (
	checkEvery    = 50 * time.Millisecond
	requestsCheck = 2
)

func startBalancer(hosts []*Host) *balancer {
	b := &balancer{quit: make(chan struct{}), client: &http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: time.Second}).DialContext,
			DisableKeepAlives: true,
		},
	}}
	for _, h := range hosts {
		b.running.Go(func() { b.serve(h) })
	}
	return b
}

func (b *balancer) serve(h *Host) {
	base := fmt.Sprintf("http://127.0.0.1:%d", h.Port)
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		if err := b.get(base + "/healthz"); err == nil {
			for range requestsCheck {
				b.requests.Add(1)
				if err := b.get(base + "/"); err != nil {
					b.failures.Add(1)
					b.example.CompareAndSwap(nil, h.Name+": "+err.Error())
				}
			}
		}
		select {
		case <-tick.C:
		case <-b.quit:
			return
		}
	}
}

func (b *balancer) get(url string) error {
	resp, err := b.client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", url, resp.StatusCode)
	}
	return nil
}

func (b *balancer) stop() (requests, failures int64, example string) {
	close(b.quit)
	b.running.Wait()
	example, _ = b.example.Load().(string)
	return b.requests.Load(), b.failures.Load(), example
}

// ask returns the revision that the host's application answers with.
func ask(h *Host) string {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", h.Port))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var out struct {
		Revision string `json:"revision"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&out); err != nil {
		return err.Error()
	}
	return out.Revision
}
