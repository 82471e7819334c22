package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// state is a file of this host's application, outside any release.
func state(name string) string { return filepath.Join(os.Getenv("WWW_STATE"), name) }

// bundled reads a one-line file of the release this program is part of.
func bundled(name string) string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(self), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// serve answers until TERM, then finishes the requests it has.
func serve(out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(state("pid"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	revision := bundled("revision")
	server := &http.Server{Handler: handler(revision, bundled("behaviour")), ReadHeaderTimeout: 5 * time.Second}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(limit)
	}()
	fmt.Fprintf(out, "%s serving %s on %s\n", time.Now().Format(time.RFC3339), revision, l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// handler answers / with who it is, /healthz to load balancers, /ping always.
func handler(revision, behaviour string) http.Handler {
	mux := http.NewServeMux()
	broken := func(w http.ResponseWriter) bool {
		if behaviour == "500" {
			http.Error(w, "broken on purpose", http.StatusInternalServerError)
		}
		return behaviour == "500"
	}
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "pong") })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if broken(w) {
			return
		}
		if _, err := os.Stat(state("drain")); err == nil {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		if broken(w) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{ // the client went away
			"revision": revision, "host": os.Getenv("HOST_NAME"), "zone": os.Getenv("ZONE"),
		})
	})
	return mux
}

// check asks a URL until it answers 200, or the time to wait is over.
func check(args []string) error {
	f := flag.NewFlagSet("check", flag.ContinueOnError)
	wait := f.Duration("wait", 0, "how long to try")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("check needs a URL")
	}
	client := &http.Client{Timeout: 2 * time.Second}
	for end := time.Now().Add(*wait); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(f.Arg(0))
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s: status %d", f.Arg(0), resp.StatusCode)
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// stop ends the running server and waits until it is gone. None is no error.
func stop() error {
	b, err := os.ReadFile(state("pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", state("pid"), err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = syscall.Kill(pid, sig) // gone already is what we want
		for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if !ours(pid) {
				return os.Remove(state("pid"))
			}
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// ours reports whether the pid is a living www, not a zombie or a stranger.
func ours(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(filepath.Base(exe), "www")
}
