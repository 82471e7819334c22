// Package rpc is the plumbing of every call: mutual TLS, who calls, what they
// may, forwarding to the leader, and errors.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kinds of errors that this package understands. An error answers one by a
// method Kind() string; this is the only place where they meet gRPC codes.
const (
	KindNotFound     = "not_found"
	KindInvalid      = "invalid"
	KindConflict     = "conflict"
	KindExists       = "exists"
	KindUnavailable  = "unavailable"
	KindUnauthorised = "unauthenticated"
	KindForbidden    = "forbidden"
	KindInternal     = "internal"
	KindTimeout      = "timeout"
	KindSplit        = "split"    // the machine is another host from now on
	KindTooMany      = "too_many" // the caller has had its share; later it may have more
	// KindStaleRights is no answer: who may do what has changed since the caller was
	// allowed, and has to be asked again. Clients see it as unavailable.
	KindStaleRights = "stale_rights"
)

func code(kind string) codes.Code {
	switch kind {
	case KindNotFound:
		return codes.NotFound
	case KindInvalid:
		return codes.InvalidArgument
	case KindConflict:
		return codes.FailedPrecondition
	case KindExists:
		return codes.AlreadyExists
	case KindUnavailable, KindStaleRights:
		return codes.Unavailable
	case KindUnauthorised:
		return codes.Unauthenticated
	case KindForbidden:
		return codes.PermissionDenied
	case KindTimeout:
		return codes.DeadlineExceeded
	case KindSplit:
		return codes.Aborted
	case KindTooMany:
		return codes.ResourceExhausted
	}
	return codes.Internal
}

// Kind returns the kind of an error, from either side of a call.
func Kind(err error) string {
	var k interface{ Kind() string }
	if errors.As(err, &k) {
		return k.Kind()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return KindTimeout
	}
	s, ok := status.FromError(err)
	if !ok {
		return KindInternal
	}
	for _, kind := range []string{
		KindNotFound, KindInvalid, KindConflict, KindExists, KindUnavailable,
		KindUnauthorised, KindForbidden, KindTimeout, KindTooMany, KindSplit,
	} {
		if code(kind) == s.Code() {
			return kind
		}
	}
	return KindInternal
}

// What gRPC puts around what went wrong, at the front of an error or within.
var (
	statusPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	dialPrefix   = regexp.MustCompile(`connection error: desc = "(?:transport: )?(?:Error while dialing: )?(.*)"`)
)

// Text returns what an error says, without what the transport puts around it.
func Text(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		text = s.Message()
	}
	text = statusPrefix.ReplaceAllString(text, "")
	return dialPrefix.ReplaceAllStringFunc(text, func(m string) string {
		return strings.ReplaceAll(dialPrefix.FindStringSubmatch(m)[1], `\"`, `"`)
	})
}

// Stranger reports whether a call failed because the other side's certificate
// is of another CA than ours. gRPC keeps only the text of the handshake's error.
func Stranger(err error) bool {
	return err != nil && strings.Contains(err.Error(),
		"authentication handshake failed: tls: failed to verify certificate")
}

// Refused reports whether a call failed because the other side does not take our
// certificate: it is of a CA that is trusted no more, or was revoked.
func Refused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "remote error: tls: ")
}

// Unreached reports whether a call failed because nobody answers at the address.
func Unreached(err error) bool { return err != nil && strings.Contains(err.Error(), "dial tcp ") }

// Canceled reports whether a call ended because its caller went away.
func Canceled(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
}

// toStatus maps an error of a handler to the wire.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(code(Kind(err)), err.Error())
}

// Error is an error of a kind.
type Error struct {
	Why  string
	Text string
}

func (e *Error) Error() string { return e.Text }

// Kind returns the kind.
func (e *Error) Kind() string { return e.Why }

// Errorf makes an error of a kind.
func Errorf(kind, format string, args ...any) error {
	return &Error{Why: kind, Text: fmt.Sprintf(format, args...)}
}
