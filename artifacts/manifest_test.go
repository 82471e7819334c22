package artifacts_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
)

func TestManifestText(t *testing.T) {
	src, err := bundle.Open(bundletest.WriteDir(t, bundletest.Sample[:4]))
	check(t, err)
	m, err := bundletest.Pack(t, src)
	check(t, err)
	var text bytes.Buffer
	check(t, m.Encode(&text))
	want := `{"format":"groundswell.manifest.v1","entries":4}
{"path":"appspec.yml","type":"file","mode":"0644","size":23,"sha256":"`
	if !strings.HasPrefix(text.String(), want) ||
		!strings.HasSuffix(text.String(), `{"path":"bin/current","type":"symlink","target":"app"}`+"\n") {
		t.Errorf("manifest:\n%s", text.String())
	}
	again, err := artifacts.ParseManifest(&text, artifacts.Limits{})
	check(t, err)
	if again.Digest() != m.Digest() || again.Bytes() != m.Bytes() || again.Files() != m.Files() {
		t.Errorf("parsed: %s, %d bytes, %d files", again.Digest(), again.Bytes(), again.Files())
	}
}

const zeroSum = "0000000000000000000000000000000000000000000000000000000000000000"

func TestManifestRefusals(t *testing.T) {
	fileLine := func(path string) string {
		return `{"path":"` + path + `","type":"file","mode":"0644","size":3,"sha256":"` + zeroSum + `"}` + "\n"
	}
	head := func(n string) string { return `{"format":"groundswell.manifest.v1","entries":` + n + "}\n" }
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "ends early"},
		"no JSON":           {"hello\n", "line 1"},
		"other format":      {`{"format":"x","entries":0}` + "\n", `"x"`},
		"too many":          {head("999999999"), "999999999 entries"},
		"negative":          {head("-1"), "-1 entries"},
		"too few":           {head("2") + fileLine("a"), "line 3"},
		"more text":         {head("1") + fileLine("a") + fileLine("b"), "after the last"},
		"unsorted":          {head("2") + fileLine("b") + fileLine("a"), `"a"`},
		"twice":             {head("2") + fileLine("a") + fileLine("a"), `"a"`},
		"dot dot":           {head("1") + fileLine("../a"), `"../a"`},
		"absolute":          {head("1") + fileLine("/a"), `"/a"`},
		"no parent":         {head("1") + fileLine("a/b"), `"a/b"`},
		"parent a file":     {head("2") + fileLine("a") + fileLine("a/b"), `"a/b"`},
		"setuid":            {head("1") + strings.Replace(fileLine("a"), "0644", "4755", 1), `"a"`},
		"unknown field":     {head("1") + strings.Replace(fileLine("a"), `"type"`, `"x":1,"type"`, 1), "canonical"},
		"spaces":            {head("1") + strings.Replace(fileLine("a"), `,`, `, `, 1), "canonical"},
		"escaped":           {head("1") + fileLine(`\u0061`), "canonical"},
		"upper-case digest": {head("1") + strings.Replace(fileLine("a"), zeroSum, strings.Repeat("A", 64), 1), `"a"`},
		"bad type":          {head("1") + `{"path":"a","type":"fifo"}` + "\n", `"fifo"`},
		"dir with size":     {head("1") + `{"path":"a","type":"dir","size":3}` + "\n", `"a"`},
		"huge":              {head("1") + strings.Replace(fileLine("a"), `:3,`, `:9000000000000000000,`, 1), `"a"`},
		"long line":         {head("1") + `{"path":"` + strings.Repeat("a", 80_000) + "\n", "longer than"},
	} {
		_, err := artifacts.ParseManifest(strings.NewReader(c.text), artifacts.Limits{})
		if !errors.Is(err, artifacts.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, c.want)
		}
	}
}

func TestDigestForms(t *testing.T) {
	for _, s := range []string{
		"", "sha256:", "sha256:xyz", "md5:" + zeroSum, "sha256:" + zeroSum[1:],
		"sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("g", 64),
	} {
		if _, err := artifacts.ParseDigest(s); !errors.Is(err, artifacts.ErrInvalid) {
			t.Errorf("digest %q: %v, want ErrInvalid", s, err)
		}
	}
	d, err := artifacts.ParseDigest("sha256:" + zeroSum)
	if err != nil || d.Hex() != zeroSum {
		t.Errorf("a good digest: %s, %v", d, err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":"groundswell.manifest.v1","entries":0}` + "\n"))
	f.Add([]byte(`{"format":"groundswell.manifest.v1","entries":2}
{"path":"a","type":"dir"}
{"path":"a/l","type":"symlink","target":"../a","owner":{"uid":3}}
`))
	f.Add([]byte(`{"format":"groundswell.manifest.v1","entries":1}
{"path":"a","type":"file","mode":"0644","size":3,"sha256":"` + zeroSum + `","mtime":5}
`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := artifacts.ParseManifest(bytes.NewReader(data), artifacts.Limits{})
		if err != nil {
			if !errors.Is(err, artifacts.ErrInvalid) {
				t.Fatalf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		var again bytes.Buffer
		check(t, m.Encode(&again))
		if !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("accepted %q, writes %q", data, again.Bytes())
		}
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
