package bundle

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/groundswell/groundswell/artifacts"
)

// newEncoder compresses whole frames with a window that every host can
// afford to decode. The frame's own checksum is left out: sha256 decides.
func newEncoder() (*zstd.Encoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(artifacts.MaxWindow),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("open zstd encoder: %w", err)
	}
	return enc, nil
}

// compress returns the shorter of raw and its zstd frame. The frame is
// appended to buf; raw is returned as it is.
func compress(enc *zstd.Encoder, raw, buf []byte) ([]byte, artifacts.Encoding) {
	if len(raw) < 32 {
		return raw, artifacts.EncodingRaw
	}
	frame := enc.EncodeAll(raw, buf[:0])
	if len(frame) >= len(raw)-len(raw)/64 {
		return raw, artifacts.EncodingRaw
	}
	return frame, artifacts.EncodingZstd
}

// compressed returns the zstd frame of what encode writes, for manifests and
// indexes.
func compressed(encode func(io.Writer) error) ([]byte, error) {
	var buf bytes.Buffer
	enc, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(artifacts.MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("open zstd encoder: %w", err)
	}
	if err := encode(enc); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return buf.Bytes(), nil
}
