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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newCLI(os.Stdin, os.Stdout, os.Stderr), os.Args[1:])
	stop()
	os.Exit(code)
}
