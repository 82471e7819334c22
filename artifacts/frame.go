package artifacts

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// NewDecoder reads one stream at a time without goroutines of its own, in
// about MaxWindow of memory; a frame that wants more is an error.
func NewDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("open zstd decoder: %w", err)
	}
	return dec, nil
}
