package artifacts

// Limits bound what a bundle may hold, whether it is packed or parsed. Zero
// fields take the defaults of [DefaultLimits].
type Limits struct {
	// Entries is the number of files, directories and symlinks.
	Entries int
	// Bytes is the sum of all files, unpacked.
	Bytes int64
}

// DefaultLimits fit real trees: a Node tree has 23,000 files, the Go
// toolchain 15,000; a cap of 4,096 is a known pain elsewhere. The bytes stop
// an archive bomb before it fills a disk.
func DefaultLimits() Limits { return Limits{Entries: 200_000, Bytes: 32 << 30} }

// OrDefault is l with what is zero replaced.
func (l Limits) OrDefault() Limits {
	d := DefaultLimits()
	if l.Entries > 0 {
		d.Entries = l.Entries
	}
	if l.Bytes > 0 {
		d.Bytes = l.Bytes
	}
	return d
}

const (
	// MaxTarget is the length of a symlink's target: PATH_MAX without its NUL.
	MaxTarget = 4095
	// maxPath is the same, maxName is NAME_MAX: what tar can write below a
	// folder. Deep ones may be too long to install.
	maxPath = 4095
	maxName = 255
)
