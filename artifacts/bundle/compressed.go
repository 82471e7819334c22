package bundle

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"
)

// What the compressed streams begin with.
var (
	magicGzip  = []byte("\x1f\x8b")
	magicBzip2 = []byte("BZh")
	magicXZ    = []byte("\xfd7zXZ\x00")
)

// uncompressed undoes the compression that in begins with, if any.
func uncompressed(in *bufio.Reader) (io.Reader, error) {
	head, err := in.Peek(len(magicXZ))
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, magicGzip):
		return newGunzip(in)
	case bytes.HasPrefix(head, magicBzip2):
		return bzip2.NewReader(in), nil
	case bytes.HasPrefix(head, magicXZ):
		return xz.NewReader(in)
	}
	return in, nil
}

// gunzip reads gzip members one after another, and zeros behind the last, as
// gzip does: a tape or an upload tool pads.
type gunzip struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGunzip(in *bufio.Reader) (*gunzip, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gunzip{in, z}, nil
}

func (g *gunzip) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	if err != io.EOF || n > 0 {
		if err == io.EOF {
			err = nil // asked for again by the next call
		}
		return n, err
	}
	if err := g.skipZeros(); err != nil {
		return 0, err
	}
	if err := g.z.Reset(g.in); err != nil {
		return 0, fmt.Errorf("after the end of gzip: %w", err)
	}
	g.z.Multistream(false)
	return g.Read(p)
}

// skipZeros answers io.EOF if nothing else follows.
func (g *gunzip) skipZeros() error {
	for {
		b, err := g.in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return g.in.UnreadByte()
		}
	}
}
