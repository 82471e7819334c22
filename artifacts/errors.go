package artifacts

import (
	"context"
	"errors"
	"io/fs"

	"github.com/groundswell/groundswell/internal/room"
)

var (
	// ErrNotFound says that the store holds no object of that key.
	ErrNotFound = errors.New("object not found")
	// ErrDigestMismatch says that bytes are not those their digest names:
	// they were damaged, or someone changed them.
	ErrDigestMismatch = errors.New("content does not match its digest")
	// ErrInvalid says that a name, key, manifest, index or archive breaks the
	// rules of its format; trying again cannot help.
	ErrInvalid = errors.New("invalid")
	// ErrNoSpace says that the disk lacks the bytes or inodes. Where that was
	// known before anything was written, a [room.Shortage] says how much.
	ErrNoSpace = room.ErrFull
)

// IsNotExist reports whether err says that an object does not exist.
func IsNotExist(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

// IsPermanent reports whether doing the same again is pointless: the object
// does not exist, the request is invalid or forbidden, the caller gave up,
// or the store marked the error with [Permanent]. A digest mismatch is not
// permanent: the next read may come from a sound copy.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p) || IsNotExist(err) ||
		errors.Is(err, ErrInvalid) || errors.Is(err, ErrNoSpace) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, context.Canceled)
}

// Permanent marks err as one that no retry will cure. Stores use it for
// refusals such as wrong credentials or a bucket that does not exist. It
// returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }
