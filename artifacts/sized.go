package artifacts

import (
	"fmt"
	"io"
)

// SizedReader returns a reader of r that fails, naming what, unless r holds
// exactly size bytes: io.ErrUnexpectedEOF if it ends early, [ErrInvalid] if
// more follows. Both are permanent: the fault is the caller's. Stores read the
// body of a Put through it, because a short body must not become an object.
func SizedReader(r io.Reader, size int64, what string) io.Reader {
	return &sizedReader{r: r, left: size, size: size, what: what}
}

type sizedReader struct {
	r          io.Reader
	left, size int64
	what       string
}

func (e *sizedReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, e.atEnd()
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0:
		return n, Permanent(fmt.Errorf("%s: ended after %d of %d bytes: %w", e.what, e.size-e.left, e.size,
			io.ErrUnexpectedEOF))
	case err == io.EOF:
		err = nil // the next call says so
	case err == nil && e.left == 0:
		// Clients stop reading at the stated size: the last bytes are held
		// back until it is certain that no more follow.
		if err := e.atEnd(); err != io.EOF {
			return 0, err
		}
	}
	return n, err
}

// atEnd returns io.EOF if r has ended.
func (e *sizedReader) atEnd() error {
	var more [1]byte
	for {
		n, err := e.r.Read(more[:])
		switch {
		case n > 0:
			return fmt.Errorf("%s: more than the stated %d bytes: %w", e.what, e.size, ErrInvalid)
		case err != nil:
			return err
		}
	}
}

// FullBody returns body so that ending before length bytes were read is
// io.ErrUnexpectedEOF, naming what; a length of -1 leaves it as it is.
// Stores return ranges through it, because some servers answer a range that
// passes the end with fewer bytes.
func FullBody(body io.ReadCloser, length int64, what string) io.ReadCloser {
	if length < 0 {
		return body
	}
	return &fullBody{ReadCloser: body, left: length, size: length, what: what}
}

type fullBody struct {
	io.ReadCloser
	left, size int64
	what       string
}

func (f *fullBody) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.ReadCloser.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF && f.left > 0 {
		return n, fmt.Errorf("%s: ended after %d of %d bytes: %w", f.what, f.size-f.left, f.size, io.ErrUnexpectedEOF)
	}
	return n, err
}
