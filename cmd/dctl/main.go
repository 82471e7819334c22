// Command dctl is what operators and CI use: it deploys, watches, rolls back
// and asks. It decides nothing; coordinators do.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/s3server"
)

func main() {
	hooks.MaybeSupervise()
	s3server.MaybeServe()
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // a terminal that is closed must not leave a fleet behind; nohup may
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	code := run(ctx, newCLI(os.Stdin, os.Stdout, os.Stderr), os.Args[1:])
	stop()
	os.Exit(code)
}
