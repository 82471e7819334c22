package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func filled(n int) *Log {
	l := &Log{}
	for i := range n {
		l.Add(Record{Index: uint64(10 + i), At: int64(1000 + i), Asked: Asked{
			Actor: fmt.Sprintf("operator/p%d", i%7), Address: "10.0.0.1", Verb: "deploy", App: "www", What: "CreateDeployment",
			Outcome: OK,
		}})
	}
	return l
}

// TestTheChainIsFixed: these sums are in people's hands; another encoding is another
// chain.
func TestTheChainIsFixed(t *testing.T) {
	l := &Log{}
	l.Add(Record{Index: 7, At: 1700000000000, Asked: Asked{
		Since: 1, Actor: "operator/ann", Address: "10.0.0.1", Verb: "deploy emergency", App: "www", Group: "prod",
		What: "CreateDeployment app=www", Reason: "fire", Request: "01H", Outcome: OK, Said: "no part of it",
	}})
	l.Add(Record{Index: 8, At: 5, Asked: Asked{Actor: "others", Outcome: "forbidden", Times: 300}})
	const ( // computed by another program, from the description of the encoding
		first  = "e5d0cb8dd7b04de62f42f8dc68bcd7be047413f602ac36d13c9e17505a2b089c"
		second = "e67b7f9618498587026175bd31a7fa20e63aad2041216660176901e4c64b4ad7"
	)
	if l.Records[0].Sum.String() != first || l.Head.String() != second {
		t.Errorf("the sums are %s and %s, they were %s and %s", l.Records[0].Sum, l.Head, first, second)
	}
	l.Records[0].Said = "worded otherwise"
	if err := Verify(nil, l.Records); err != nil {
		t.Errorf("the wording of a refusal is part of the chain: %v", err)
	}
}

// TestEveryFieldIsInTheChain, but the wording: whatever is changed is found, and named.
func TestEveryFieldIsInTheChain(t *testing.T) {
	l := filled(50)
	if err := Verify(nil, l.Records); err != nil {
		t.Fatal(err)
	}
	changed := 0
	var change func(v reflect.Value, path string)
	change = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
			return
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Uint64:
			v.SetUint(v.Uint() + 1)
		case reflect.Slice:
			b := bytes.Clone(v.Bytes())
			b[0] ^= 1
			v.SetBytes(b)
		default:
			t.Fatalf("%s is a %s", path, v.Kind())
		}
		changed++
	}
	n := reflect.TypeOf(Record{}).NumField() + reflect.TypeOf(Asked{}).NumField()
	for i := range n {
		records := append([]Record(nil), l.Records...)
		r := reflect.ValueOf(&records[20]).Elem()
		name := ""
		if i < r.NumField() {
			if r.Type().Field(i).Name == "Asked" {
				continue
			}
			name = r.Type().Field(i).Name
			change(r.Field(i), name)
		} else {
			a := r.FieldByName("Asked")
			name = a.Type().Field(i - r.NumField()).Name
			change(a.Field(i-r.NumField()), name)
		}
		err := Verify(nil, records)
		switch {
		case name == "Said":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case err == nil:
			t.Errorf("another %s of record 21 is not found", name)
		case !strings.Contains(err.Error(), "record 21 ") && !strings.Contains(err.Error(), "record 20 "):
			t.Errorf("%s: %v", name, err)
		}
	}
	if changed != n-1 {
		t.Errorf("%d of %d fields were changed", changed, n-1)
	}
	// two fields are not one: what is moved from one to the next is found
	records := append([]Record(nil), l.Records...)
	records[20].App, records[20].Verb = "", records[20].Verb+records[20].App
	if Verify(nil, records) == nil {
		t.Error("a text that moved to the field before it is not found")
	}
	if err := Verify(nil, append(l.Records[:10:10], l.Records[11:]...)); err == nil ||
		!strings.Contains(err.Error(), "10 is followed by 12") {
		t.Errorf("a record is missing: %v", err)
	}
}

// TestWhatIsKept: the newest, by number and by bytes, once they are exported; more while
// nothing can be, but not for ever; and what is kept is a chain.
func TestWhatIsKept(t *testing.T) {
	l := filled(Most)
	if l.Due() {
		t.Error("nothing has to go yet")
	}
	image := l.Records[:len(l.Records):len(l.Records)]
	l.Add(Record{})
	if !l.Due() || len(l.Records) != Most+1 {
		t.Errorf("%d records, due %t: what is not exported stays", len(l.Records), l.Due())
	}
	l.Export(l.Seq)
	if len(l.Records) != Most || l.Due() || l.Lost != 0 {
		t.Errorf("%d records, lost %d", len(l.Records), l.Lost)
	}
	if image[0].Seq != 1 || Verify(nil, image) != nil {
		t.Error("an image of before has changed")
	}
	for range 3 * Most {
		l.Add(Record{})
	}
	if len(l.Records) != MostUnexported || l.Lost != l.Records[0].Seq-1 {
		t.Errorf("%d records are kept that no file has, lost up to %d", len(l.Records), l.Lost)
	}
	if err := Verify(l.Before, l.Records); err != nil {
		t.Error(err)
	}
	l.Export(l.Seq + 1000) // a leader of another life
	if l.Exported != l.Seq {
		t.Errorf("exported up to %d of %d", l.Exported, l.Seq)
	}
	big := &Log{}
	for range Most / 2 {
		big.Add(Record{Asked: Asked{What: strings.Repeat("x", mostText), Reason: strings.Repeat("y", mostText)}})
		big.Export(big.Seq)
	}
	want := int64(0)
	for _, r := range big.Records {
		want += r.weight()
	}
	if big.Bytes > MostBytes || big.Bytes < MostBytes*9/10 || big.Bytes != want {
		t.Errorf("%d bytes are kept, %d are counted", want, big.Bytes)
	}
	if before, some := big.After(big.Seq-3, 2); len(some) != 2 || some[0].Seq != big.Seq-2 || Verify(before, some) != nil {
		t.Errorf("behind the third from the end: %v", some)
	}
	before, some := big.After(0, 10)
	if len(some) != 10 || some[0].Seq != big.Records[0].Seq || Verify(before, some) != nil {
		t.Error("from the beginning of what is kept")
	}
	if _, none := big.After(big.Seq+5, 10); len(none) != 0 {
		t.Error("behind the end")
	}
}

// TestLines: what is exported comes back, a torn line is left out, a changed byte found.
func TestLines(t *testing.T) {
	l := filled(20)
	var out bytes.Buffer
	w := json.NewEncoder(&out)
	_ = w.Encode(Header{Format: FormatLines, Cluster: "c", Epoch: 2})
	for _, r := range l.Records {
		_ = w.Encode(r)
	}
	text := out.Bytes()
	for cut := range len(text) {
		_, records, whole, err := ReadLines(bytes.NewReader(text[:cut]))
		if err != nil || whole > int64(cut) || whole > 0 && text[whole-1] != '\n' {
			t.Fatalf("cut at %d: %d whole, %v", cut, whole, err)
		}
		if err := Verify(nil, records); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	h, records, _, err := ReadLines(bytes.NewReader(text))
	if err != nil || h.Epoch != 2 || !reflect.DeepEqual(records, l.Records) {
		t.Fatalf("%+v %v", h, err)
	}
	start := bytes.IndexByte(text, '\n') + 1
	for at := start; at < len(text)-1; at++ { // without its end the last line is none, as one that was torn
		flipped := bytes.Clone(text)
		flipped[at] ^= 1
		_, records, _, err := ReadLines(bytes.NewReader(flipped))
		if err != nil {
			continue
		}
		// a key that is spelt otherwise may be the same one, to who reads JSON
		if Verify(nil, records) == nil && len(records) == 20 && !reflect.DeepEqual(records, l.Records) {
			t.Fatalf("byte %d of %q is not found", at, flipped[max(start, at-20):at+20])
		}
		if Verify(nil, records) == nil && len(records) != 20 {
			t.Fatalf("byte %d: %d records", at, len(records))
		}
	}
}

// TestClean: no text of anybody's breaks a line, a terminal or a limit.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode 語":   "plain ünïcode 語",
		"a\nb\r\x1b[31mred": `a\u{a}b\u{d}\u{1b}[31mred`,
		"\u202eevil\u2028":  `\u{202e}evil\u{2028}`,
		"\xff\xfe\x00":      `\xff\xfe\u{0}`,
	} {
		if got := Clean(in, 100); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
	long := Clean(strings.Repeat("語\n", 1<<20), 100)
	if len(long) > 130 || !utf8.ValidString(long) || !strings.HasSuffix(long, "…(4194304 bytes)") {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}

// TestRefusals: a flood is one record a minute and then fewer, whoever joins it; nobody is
// lost from the count.
func TestRefusals(t *testing.T) {
	now := time.Unix(1e9, 0)
	f := NewRefusals(time.Minute)
	note := func(actor, verb, app string) {
		f.Note(Asked{Actor: actor, Verb: verb, App: app, Outcome: "forbidden", Address: "10.0.0.1"}, now)
	}
	note("operator/ann", "deploy", "www")
	note("operator/ann", "deploy", "www")
	note("operator/ann", "stop", "www")
	note("operator/ann", "stop", "api")
	if got := f.Due(now.Add(59 * time.Second)); len(got) != 0 {
		t.Errorf("before the minute is over: %v", got)
	}
	now = now.Add(time.Minute)
	got := f.Due(now)
	if len(got) != 2 || got[0].Times != 2 || got[0].App != "www" || got[0].Since != 1e12 || got[1].App != "" {
		t.Errorf("after a minute: %+v", got)
	}
	records, asked, told := 0, 0, int64(0)
	for range 24 * 60 * 6 { // a day, every ten seconds
		now = now.Add(10 * time.Second)
		for i := range 3 {
			note("operator/mallory", fmt.Sprint("verb", i), fmt.Sprint("app", asked%5))
			asked++
		}
		for _, r := range f.Due(now) {
			records++
			told += r.Times
		}
	}
	if records > 3*32 {
		t.Errorf("%d records of one who is refused for a day", records)
	}
	for range 3 {
		now = now.Add(time.Hour)
		for _, r := range f.Due(now) {
			told += r.Times
		}
	}
	if told != int64(asked) {
		t.Errorf("%d of %d are told of", told, asked)
	}
	if len(f.counted) != 0 {
		t.Errorf("%d are remembered who are quiet", len(f.counted))
	}
	for i := range 10_000 {
		note(fmt.Sprintf("operator/m%d", i), "deploy", "www")
	}
	now = now.Add(time.Minute)
	got = f.Due(now)
	var sum, others int64
	for _, r := range got {
		sum += r.Times
		if r.Actor == Others {
			others = r.Times
		}
	}
	if len(got) > MostCounted+1 || sum != 10_000 || others != 10_000-MostCounted {
		t.Errorf("%d records of 10,000 actors, %d of others, %d in all", len(got), others, sum)
	}
}

func BenchmarkAdd(b *testing.B) {
	l := filled(Most)
	r := l.Records[0]
	b.ReportAllocs()
	for b.Loop() {
		l.Add(r)
		l.Export(l.Seq)
	}
}
