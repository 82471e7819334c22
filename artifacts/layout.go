package artifacts

// ManifestKey is where the manifest of d lies: one zstd frame of its
// canonical encoding.
func ManifestKey(d Digest) string { return "manifests/" + d.Hex() }

// IndexKey is where the index of d lies. It may be rewritten at any time by
// another that describes the same content.
func IndexKey(d Digest) string { return "indexes/" + d.Hex() }

// PackKey is where the pack whose bytes have that sum lies.
func PackKey(s Sum) string { return "packs/" + s.String() }

const (
	// MaxPart is how much of a file lies in one frame. S3 likes ranges of 8
	// to 16 MB, and a broken transfer repeats no more than this.
	MaxPart = 16 << 20
	// MaxWindow bounds what a decoder must keep; an agent runs several within
	// 64 MB.
	MaxWindow = 4 << 20
)
