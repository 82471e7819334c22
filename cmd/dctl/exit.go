package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundswell/groundswell/internal/rpc"
)

// Exit codes. They are a contract with scripts: never renumber them.
const (
	exitDone         = 0
	exitOther        = 1
	exitUsage        = 2   // usage or validation
	exitHalted       = 3   // failed and halted, or waits for a decision: the fleet may be mixed
	exitAuth         = 4   // authentication or authorisation
	exitRolledBack   = 5   // failed, and rolled back clean
	exitBroken       = 6   // failed, and so did going back
	exitRefused      = 7   // freeze, lock, conflict, policy
	exitWatchTimeout = 8   // the watch gave up, the deployment goes on
	exitApproval     = 9   // waits for an approval
	exitChanges      = 10  // plan --exit-code found changes
	exitDetached     = 130 // ended by Ctrl-C
)

// exitError ends dctl with a code. An empty text says that everything has been
// told already.
type exitError struct {
	code int
	text string
	err  error
}

func (e *exitError) Error() string {
	if e.err != nil {
		return e.text + e.err.Error()
	}
	return e.text
}

func (e *exitError) Unwrap() error { return e.err }

// usage is a mistake in the call itself.
func usage(format string, args ...any) error {
	return &exitError{code: exitUsage, text: fmt.Sprintf(format, args...)}
}

// silent ends dctl with a code and without a word.
func silent(code int) error {
	if code == exitDone {
		return nil
	}
	return &exitError{code: code}
}

// exitCode maps an error to the code that dctl ends with.
func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, context.Canceled):
		return exitDetached
	}
	switch rpc.Kind(err) {
	case rpc.KindInvalid, rpc.KindNotFound:
		return exitUsage
	case rpc.KindConflict, rpc.KindExists:
		return exitRefused
	case rpc.KindUnauthorised, rpc.KindForbidden:
		return exitAuth
	}
	return exitOther
}
