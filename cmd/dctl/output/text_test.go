package output

import "testing"

func TestShortNames(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "(devel)": "(devel)", "": "",
		"v0.0.0-20261127072447-d9b892211a62":         "d9b892211a62",
		"v1.2.4-0.20261127072447-d9b892211a62+dirty": "d9b892211a62+dirty",
	} {
		if got := ShortVersion(version); got != want {
			t.Errorf("%s is %s, want %s", version, got, want)
		}
	}
	const commit = "4f2a91c04f2a91c04f2a91c04f2a91c04f2a91c0"
	if got := ShortName(commit) + " " + ShortName("release-7"); got != commit[:12]+" release-7" {
		t.Error(got)
	}
}
