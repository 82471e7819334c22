package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// debug serves metrics and profiles on a loopback address until ctx ends.
func (c *Coordinator) debug(ctx context.Context) error {
	if c.o.Debug == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/metrics", c.metrics)
	l, err := net.Listen("tcp", c.o.Debug)
	if err != nil {
		return fmt.Errorf("listen for metrics and profiles on %s: %w; another coordinator may run on this machine: "+
			"give another address, or none, by --debug", c.o.Debug, err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = server.Close() // nothing waits for an answer any more
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}
