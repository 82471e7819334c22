package artifacts

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Store holds immutable objects by key. All methods may be called
// concurrently and observe ctx. Every error wraps its cause, so that
// [IsNotExist] and [IsPermanent] can answer, and shows no credential.
//
// A key is what [CheckKey] accepts. An object is never changed once put:
// keys that hold content are named by that content's digest.
type Store interface {
	Opener
	// Put stores exactly size bytes of r under key. It is atomic: readers see
	// the whole object or none of it, also when Put fails or the process
	// dies; on return the object is durable. It is idempotent: a second Put
	// of the same key replaces the object. An r of another length is an
	// error and stores nothing. An r that is an [io.Seeker] lets decorators
	// repeat the call.
	Put(ctx context.Context, key string, r io.Reader, size int64) error
	// Stat returns the object's size, or an error for which [IsNotExist]
	// holds.
	Stat(ctx context.Context, key string) (size int64, err error)
	// Delete removes the object. A key that holds none is no error.
	Delete(ctx context.Context, key string) error
}

// Opener reads ranges of objects; it is all that fetching needs.
type Opener interface {
	// Open reads length bytes of the object from offset, or all bytes from
	// offset to its end if length is -1. A missing object is an error of
	// Open itself for which [IsNotExist] holds. A range that is not wholly
	// inside the object, and a connection that breaks, is an error of Open or
	// of a later Read, never a silent early io.EOF. The caller closes the
	// reader; ctx bounds its reads too.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
}

// Presigner is what a store also implements if it can hand out URLs that
// read one object without credentials, by http(s) ranged GET or from a
// file:// path.
type Presigner interface {
	// Presign returns a URL that reads key for ttl. It does not check that
	// the object exists.
	Presign(ctx context.Context, key string, ttl time.Duration) (url string, err error)
}

// maxKey is far below the 1,024 bytes of S3, so that a prefix fits too.
const maxKey = 512

// CheckKey says whether key may name an object: one or more parts of lower
// case letters, digits, '-', '_' and '.', joined by '/', none of them empty
// or beginning with a dot. Such a key means the same in every store and
// cannot leave a folder. The error wraps [ErrInvalid].
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("object key %.80q: must have 1 to %d bytes: %w", key, maxKey, ErrInvalid)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || strings.ContainsFunc(part, notKeyRune) {
			return fmt.Errorf("object key %q: part %q is not made of a-z 0-9 - _ . without a leading dot: %w", key,
				part, ErrInvalid)
		}
	}
	return nil
}

func notKeyRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// CheckRange says whether offset and length are what [Opener] allows; the
// error wraps [ErrInvalid].
func CheckRange(key string, offset, length int64) error {
	if offset < 0 || length == 0 || length < -1 {
		return fmt.Errorf("open %s: range %d+%d: offset must be at least 0 and length positive or -1: %w", key, offset,
			length, ErrInvalid)
	}
	return nil
}
