package bundle_test

import (
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
)

// TestDigestIsTheSameFromEverySource packs one content as a directory, zip,
// tar and tgz, in other orders, with and without directory entries and a
// wrapping top directory. As long as no archive states owners, and no zip
// states times, there are two revisions: a tar always states times, here the
// epoch.
func TestDigestIsTheSameFromEverySource(t *testing.T) {
	reversed := make([]file, 0, len(bundletest.Sample))
	for i := range bundletest.Sample {
		reversed = append(reversed, bundletest.Sample[len(bundletest.Sample)-1-i])
	}
	var wrapped, dotted []file
	for _, f := range bundletest.Sample {
		w := f
		w.Name = "www-1.2.3/" + f.Name
		wrapped = append(wrapped, w)
		d := f
		d.Name = "./" + f.Name
		dotted = append(dotted, d)
	}
	sources := map[string]string{
		"directory":    bundletest.WriteDir(t, bundletest.Sample),
		"tar":          bundletest.WriteFile(t, "b.tar", bundletest.Tar(t, bundletest.Sample)),
		"tar reversed": bundletest.WriteFile(t, "b.tar", bundletest.Tar(t, reversed)),
		"tar dotted":   bundletest.WriteFile(t, "b.tar", bundletest.Tar(t, append([]file{{Name: "./"}}, dotted...))),
		"tar wrapped":  bundletest.WriteFile(t, "b.tar", bundletest.Tar(t, wrapped)),
		"tgz":          bundletest.WriteFile(t, "b.tgz", bundletest.Tgz(t, bundletest.Tar(t, bundletest.Sample))),
		"tgz wrapped":  bundletest.WriteFile(t, "b.tgz", bundletest.Tgz(t, bundletest.Tar(t, wrapped))),
		"zip":          bundletest.WriteFile(t, "b.zip", bundletest.Zip(t, bundletest.Sample)),
		"zip reversed": bundletest.WriteFile(t, "b.zip", bundletest.Zip(t, reversed)),
		"zip wrapped":  bundletest.WriteFile(t, "b.zip", bundletest.Zip(t, wrapped)),
	}
	// These digests may change only together with the name of the format.
	const none = "sha256:4878e0cd034814bbb41cdea42eb4241e050c12c9cf21c749253143265b7b9911"
	const epoch = "sha256:2d691ca66e88746f89903d20806abad597283d5d15e67cd46881f0cf26c650a1"
	for name, path := range sources {
		want := none
		if strings.HasPrefix(name, "t") {
			want = epoch
		}
		src, err := bundle.Open(path)
		check(t, err)
		m, err := bundletest.Pack(t, src)
		check(t, err)
		if string(m.Digest()) != want {
			t.Errorf("%s: digest %s, want %s", name, m.Digest(), want)
		}
	}
}
