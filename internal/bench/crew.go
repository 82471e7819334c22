package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
)

// crew are the processes of simulated agents.
type crew struct {
	workers []*workerProcess
	ended   sync.WaitGroup
}

type workerProcess struct {
	in    io.WriteCloser
	out   *bufio.Scanner
	ended chan error
	log   string
}

// hostsAWorker bounds the hosts of one process: each has a connection, and while it
// comes back two, of 20,000 files.
const hostsAWorker = 7500

// startCrew starts as many processes as the hosts need.
func startCrew(f *devfleet.Fleet, argv []string, o WorkerOptions, hosts, atOnce int) (*crew, error) {
	c := &crew{}
	n := (hosts + hostsAWorker - 1) / hostsAWorker
	o.AtOnce = max(1, atOnce/n)
	for i := range n {
		o.From, o.To = hosts*i/n, hosts*(i+1)/n
		w := &workerProcess{
			ended: make(chan error, 1),
			log:   filepath.Join(f.Dir(), "logs", fmt.Sprintf("hosts-%d.log", i)),
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		log, err := os.Create(w.log)
		if err != nil {
			return c, fmt.Errorf("open log of simulated hosts: %w", err)
		}
		defer log.Close()
		cmd.Stderr = log
		if w.in, err = cmd.StdinPipe(); err != nil {
			return c, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return c, err
		}
		w.out = bufio.NewScanner(out)
		w.out.Buffer(nil, 256<<20)
		c.ended.Go(func() { w.ended <- f.Run(cmd) })
		c.workers = append(c.workers, w)
		if err := json.NewEncoder(w.in).Encode(o); err != nil {
			return c, fmt.Errorf("start simulated hosts: %w", err)
		}
	}
	return c, nil
}

// stop ends the processes.
func (c *crew) stop() {
	for _, w := range c.workers {
		_ = w.in.Close() // it ends with its input
	}
	c.ended.Wait()
}

// tell gives every process an order and sums up what they answer.
func (c *crew) tell(do string) (Counts, error) {
	sum := Counts{Troubles: map[string]int{}}
	for _, w := range c.workers {
		if err := json.NewEncoder(w.in).Encode(order{Do: do}); err != nil {
			return sum, w.died(err)
		}
	}
	for _, w := range c.workers {
		if !w.out.Scan() {
			return sum, w.died(w.out.Err())
		}
		var n Counts
		if err := json.Unmarshal(w.out.Bytes(), &n); err != nil {
			return sum, fmt.Errorf("read the counts of simulated hosts: %w", err)
		}
		sum.Joined += n.Joined
		sum.Up += n.Up
		sum.Targets += n.Targets
		sum.Reports += n.Reports
		sum.Sessions += n.Sessions
		sum.Done = append(sum.Done, n.Done...)
		for text, k := range maps.All(n.Troubles) {
			sum.Troubles[text] += k
		}
	}
	return sum, nil
}

func (w *workerProcess) died(err error) error {
	b, _ := os.ReadFile(w.log) // no word of it is no word
	return fmt.Errorf("the simulated hosts ended: %w\n%s", cmp.Or(err, io.ErrUnexpectedEOF), b)
}

// poll is how often counts are asked for.
const poll = 50 * time.Millisecond

// until asks for counts until they satisfy.
func (c *crew) until(ctx context.Context, limit time.Duration, what string, ok func(Counts) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		n, err := c.tell("")
		if err != nil {
			return err
		}
		if ok(n) {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			n.Done = nil
			return fmt.Errorf("waited %s for %s: %+v", limit, what, n)
		}
	}
}
