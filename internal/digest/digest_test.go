package digest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// The digests of "hello" as other programs compute them:
//
//	printf hello | openssl dgst -sha256 -binary | base64 -w0
const (
	hello256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
	hello512 = "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="
)

func TestParse(t *testing.T) {
	t.Parallel()
	one, two := "sha-256=:"+hello256+":", "sha-512=:"+hello512+":"
	other := "sha-256=:" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + ":"
	for _, test := range []struct {
		name  string
		lines []string
		want  string // the digests, or "error" and a part of the text
	}{
		{"none", nil, "[]"},
		{"empty", []string{""}, "[]"},
		{"one", []string{one}, "[" + one + "]"},
		{"another", []string{two}, "[" + two + "]"},
		{"both", []string{two + "," + one}, "[" + one + " " + two + "]"},
		{"two lines", []string{one, two}, "[" + one + " " + two + "]"},
		{"spaces", []string{"  " + one + " \t,\t " + two + "  "}, "[" + one + " " + two + "]"},
		{"the last counts", []string{other + ", " + one}, "[" + one + "]"},
		{"a space before a semicolon", []string{one + " ;a"}, "error dictionary"},
		{"parameters", []string{one + `;a=?1; b="x,y";c`}, "[" + one + "]"},
		{"no padding", []string{strings.TrimSuffix(one, "=:") + ":"}, "[" + one + "]"},
		{"set bits after the end", []string{strings.Replace(one, "Q=:", "R=:", 1)}, "[" + one + "]"},
		{"other algorithms", []string{"md5=:CY9rzUYh03PK3k6DJie09g==:, unixsum=30637, " + one + ", x=(1 2;a);b, *y"}, "[" + one + "]"},
		{"another alone", []string{"sha256=:aa:"}, "[]"},

		{"hexadecimal", []string{"sha-256=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}, "error dictionary"},
		{"a token", []string{"sha-256=x"}, "error not base64 between two colons"},
		{"as in RFC 3230", []string{"sha-256=" + hello256}, "error dictionary"},
		{"a string", []string{`sha-256="` + hello256 + `"`}, "error not base64 between two colons"},
		{"a number", []string{"sha-256=10"}, "error not base64 between two colons"},
		{"no value", []string{"sha-256"}, "error not base64 between two colons"},
		{"a list", []string{"sha-256=(:" + hello256 + ":)"}, "error not base64 between two colons"},
		{"an overwritten digest", []string{one + ", sha-256=1"}, "error not base64 between two colons"},
		{"too short", []string{"sha-256=:" + hello256[4:] + ":"}, "error has 29 bytes, not 32"},
		{"too long", []string{"sha-256=:" + hello512 + ":"}, "error has 64 bytes, not 32"},
		{"nothing", []string{"sha-512=::"}, "error has 0 bytes, not 64"},
		{"base64 for URLs", []string{"sha-256=:" + strings.ReplaceAll(hello256, "+", "-") + ":"}, "error dictionary"},
		{"capitals", []string{strings.ToUpper(one[:7]) + one[7:]}, "error dictionary"},
		{"no end", []string{one[:len(one)-1]}, "error dictionary"},
		{"a comma too many", []string{one + ","}, "error dictionary"},
		{"an empty line", []string{one, ""}, "error dictionary"},
		{"no comma", []string{one + " " + two}, "error dictionary"},
		{"more", []string{one + "x"}, "error dictionary"},
		{"a long one", []string{strings.Repeat("é", 10000)}, "error dictionary"},
	} {
		got, err := Parse(test.lines)
		if err != nil {
			text, ok := strings.CutPrefix(test.want, "error ")
			if !ok || !strings.Contains(err.Error(), text) || len(err.Error()) > 1000 || got != nil {
				t.Errorf("%s: got %v, %v, want %s", test.name, got, err, test.want)
			}
		} else if got := fmt.Sprint(got); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestPreferred(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"":                                   "",
		"sha-256=1":                          SHA256,
		"sha-512=1":                          SHA512,
		"sha-256=3, sha-512=10":              SHA512,
		"sha-512=3, sha-256=10":              SHA256,
		"sha-512=3, sha-256=3":               SHA256,
		"sha-256=0":                          "",
		"sha-256=0, sha-512=1":               SHA512,
		"sha-256=5;a=b":                      SHA256,
		"sha-256=2, sha-256=0":               "",
		"md5=10, sha-512=1, unixsum=3":       SHA512,
		"md5=10":                             "",
		"sha-256=11":                         "",
		"sha-256=-1":                         "",
		"sha-256=999999999999999":            "",
		"sha-256=1.0":                        "",
		"sha-256":                            "",
		"sha-256=?1":                         "",
		"sha-256=(1)":                        "",
		"sha-256=:" + hello256 + ":":         "",
		"sha-256=1,":                         "",
		"sha-256=1; q=0.5, sha-512;q=1":      SHA256,
		"sha-256;q=1":                        "",
		"SHA-256=1":                          "",
		"sha-256=1, é":                       "",
		"sha-256=1000000000000000":           "",
		Preference:                           SHA256,
		"sha-512=9, *=5, a_b.c-d=@1, sha=\"": "",
	} {
		if got := Preferred([]string{field}); got != want {
			t.Errorf("%q: got %q, want %q", field, got, want)
		}
	}
	if got := Preferred([]string{"sha-256=1", "sha-512=2"}); got != SHA512 {
		t.Errorf("two lines: got %q, want %q", got, SHA512)
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	h := NewHash(SHA256, SHA512, SHA256)
	io.WriteString(h, "to be forgotten")
	h.Reset()
	for _, part := range []string{"hel", "", "lo"} {
		io.WriteString(h, part)
	}
	for algorithm, sum := range map[string]string{SHA256: hello256, SHA512: hello512} {
		want := algorithm + "=:" + sum + ":"
		if got := h.Digest(algorithm).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if parsed, err := Parse([]string{want}); err != nil || h.Check(parsed) != nil {
			t.Errorf("%s: got %v, %v, want it to fit", want, err, h.Check(parsed))
		}
	}
}

// TestReader checks that a stream that does not fit has no end.
func TestReader(t *testing.T) {
	t.Parallel()
	right, err := Parse([]string{"sha-256=:" + hello256 + ":, sha-512=:" + hello512 + ":"})
	if err != nil {
		t.Fatal(err)
	}
	for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader} {
		for text, fits := range map[string]bool{"hello": true, "hellO": false, "hell": false, "hello\n": false, "": false} {
			for _, want := range [][]Digest{right, right[:1], right[1:]} {
				r := NewReader(wrap(strings.NewReader(text)), want)
				b, err := io.ReadAll(r)
				mismatch, ok := errors.AsType[*MismatchError](err)
				if string(b) != text || (err == nil) != fits || !fits && (!ok || mismatch.Want != want[0] || mismatch.Got == want[0]) {
					t.Errorf("%q: got %q, %v, want it to fit: %v", text, b, err, fits)
				}
				if _, again := r.Read(make([]byte, 1)); (again == io.EOF) != fits {
					t.Errorf("%q: got %v from another Read, want it as before: %v", text, again, err)
				}
			}
		}
	}
	mixed := []Digest{right[0], {SHA512, right[1].Sum[1:] + "x"}}
	if _, err := io.ReadAll(NewReader(strings.NewReader("hello"), mixed)); err == nil {
		t.Error("the second of two digests is wrong: got nil, want an error")
	}
	if _, err := io.ReadAll(NewReader(iotest.ErrReader(iotest.ErrTimeout), right)); err != iotest.ErrTimeout {
		t.Errorf("got %v, want the error of the reader", err)
	}
}

// The grammar of a dictionary (RFC 9651, section 3) as a regular expression.
var (
	grammarOfKey    = `[a-z*][a-z0-9_.*-]*`
	grammarOfBytes  = `:(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?:`
	grammarOfItem   = `(?:-?[0-9]{1,15}|-?[0-9]{1,12}\.[0-9]{1,3}|"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z*][-!#$%&'*+.^_` + "`" + `|~0-9A-Za-z:/]*|` + grammarOfBytes + `|\?[01]|@-?[0-9]{1,15}|%"(?:[ !#$&-~]|%[0-9a-f]{2})*")`
	grammarOfParams = `(?:; *` + grammarOfKey + `(?:=` + grammarOfItem + `)?)*`
	grammarOfList   = `\( *(?:` + grammarOfItem + grammarOfParams + `(?: +` + grammarOfItem + grammarOfParams + `)*)? *\)`
	grammarOfMember = grammarOfKey + `(?:=(?:` + grammarOfItem + `|` + grammarOfList + `))?` + grammarOfParams
	dictionary      = regexp.MustCompile(`^ *(?:` + grammarOfMember + `(?:[ \t]*,[ \t]*` + grammarOfMember + `)*[ \t]*)? *$`)
)

// FuzzParse compares the parser with the grammar. What it returns must be the same
// after formatting and parsing.
func FuzzParse(f *testing.F) {
	for _, field := range []string{
		"", "sha-256=:" + hello256 + ":", "sha-512=:" + hello512 + ":;a=1.5;b , md5=:aa==:", "sha-256=10, sha-512=0", `a="\"\\ ,", b=%"%c3%a9 x", c=@-1, d=?0, e=*x:/`,
		"a=( 1 2.5;x=y  tok ) ;p, b=(),c", `a=%"%ff"`, "a=:=:", "a=:a:", "a=:aaa=:", "a,", "a, ,b", "a=-", "a=1234567890123456", "a=1.", "a=(1,2)", "a=(1\t2)", "*", "a=@1.0", `a="é"`, "a=?2", "a;b;*c=:aaaa:",
	} {
		f.Add(field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		if len(field) > 10_000 {
			return // the regular expression is slow
		}
		_, err := parseDictionary([]string{field})
		if want := dictionary.MatchString(field); (err == nil) != want && !strings.Contains(field, `%"`) { // a display string must be UTF-8 too
			t.Errorf("%q: got %v, want success: %v", field, err, want)
		}
		digests, _ := Parse([]string{field})
		var lines []string
		for _, d := range digests {
			lines = append(lines, d.String())
		}
		again, againErr := Parse(lines)
		if againErr != nil || fmt.Sprint(again) != fmt.Sprint(digests) {
			t.Errorf("%q: got %v, %v of the digests %v, want the same", field, again, againErr, digests)
		}
		if algorithm := Preferred([]string{field}); algorithm != "" && !strings.Contains(field, algorithm+"=") {
			t.Errorf("%q: got %q, want an algorithm that is in it", field, algorithm)
		}
	})
}
