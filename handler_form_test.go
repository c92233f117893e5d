package imagestore_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// part is one part of a multipart form.
type part struct {
	header textproto.MIMEHeader
	body   string
}

func field(name, body string) part {
	return part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"`}}, body}
}

func file(name string, body []byte) part {
	return part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"; filename="x.png"`}, "Content-Type": {"image/png"}}, string(body)}
}

// form returns a multipart body and its Content-Type.
func form(tb testing.TB, parts ...part) (body, contentType string) {
	tb.Helper()
	var b strings.Builder
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		pw, err := w.CreatePart(p.header)
		if err != nil {
			tb.Fatal(err)
		}
		io.WriteString(pw, p.body)
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

// TestMultipart sends valid, unusual and malformed forms.
func TestMultipart(t *testing.T) {
	t.Parallel()
	good := testimage.PNG(t, 10, 1)
	exact := testimage.PNG(t, 314, 1)
	maxBytes := len(exact)
	rawForm := func(s string) (string, string) { return s, "multipart/form-data; boundary=b" }
	nested, nestedType := form(t, file("file", good))
	many := make([]part, 500)
	for i := range many {
		many[i] = field(fmt.Sprint("f", i), "")
	}
	disposition := func(s string) part {
		return part{textproto.MIMEHeader{"Content-Disposition": {s}}, string(good)}
	}
	for _, test := range []struct {
		name   string
		form   func() (body, contentType string)
		status int
		text   string
	}{
		{"only the file", func() (string, string) { return form(t, file("file", good)) }, 201, ""},
		{"fields around it", func() (string, string) { return form(t, field("a", "1"), file("file", good), field("b", "2")) }, 201, ""},
		{"no file name", func() (string, string) { return form(t, field("file", string(good))) }, 201, ""},
		{"a file name with a path", func() (string, string) {
			return form(t, disposition(`form-data; name="file"; filename="../../etc/passwd"`))
		}, 201, ""},
		{"a file name like no other", func() (string, string) {
			return form(t, disposition(`form-data; name=file; filename*=UTF-8''..%2f%00.png`))
		}, 201, ""},
		{"an epilogue", func() (string, string) { b, ct := form(t, file("file", good)); return b + "and more", ct }, 201, ""},
		{"an image of just the size allowed", func() (string, string) { return form(t, file("file", exact)) }, 201, ""},
		{"the name in the file name", func() (string, string) { return form(t, disposition(`form-data; name="x"; filename="file"`)) }, 400, `"x"`},
		{"another case", func() (string, string) { return form(t, file("File", good)) }, 400, `"File"`},
		{"no parts", func() (string, string) { return form(t) }, 400, "empty"},
		{"no part of that name", func() (string, string) { return form(t, field("a", "1"), file("image", good)) }, 400, `these came: "a", "image"`},
		{"no disposition", func() (string, string) { return form(t, part{textproto.MIMEHeader{}, string(good)}) }, 400, `no part named "file"`},
		{"two files", func() (string, string) { return form(t, file("file", good), file("file", good)) }, 400, "more than one"},
		{"too many parts", func() (string, string) { return form(t, append(many, file("file", good))...) }, 413, "besides the file"},
		{"too much after it", func() (string, string) {
			return form(t, file("file", good), field("a", strings.Repeat("x", maxBytes+40_000)))
		}, 413, ""},
		{"a giant header", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "X": {strings.Repeat("x", 60_000)}}, string(good)})
		}, 413, "besides the file"},
		{"a file that is too large", func() (string, string) { return form(t, file("file", testimage.PNG(t, 400, 1))) }, 413, fmt.Sprint(maxBytes, " bytes")},
		{"nested", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "Content-Type": {nestedType}}, nested})
		}, 415, "multipart body"},
		{"another boundary", func() (string, string) { b, _ := form(t, file("file", good)); return rawForm(b) }, 400, "multipart"},
		{"not a form at all", func() (string, string) { return rawForm(string(good)) }, 400, "multipart"},
		{"nothing", func() (string, string) { return rawForm("") }, 400, "multipart"},
		{"no end", func() (string, string) {
			b, ct := form(t, file("file", good))
			return b[:len(b)-4], ct
		}, 400, "multipart"},
		{"a part without end", func() (string, string) {
			b, ct := form(t, file("file", good))
			return b[:len(b)-100], ct
		}, 400, "multipart"},
		{"bad header", func() (string, string) { return rawForm("--b\r\n: no name\r\n\r\nx\r\n--b--\r\n") }, 400, "multipart"},
		{"base64", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "Content-Transfer-Encoding": {"base64"}}, "iVBORw0KGgo="})
		}, 415, "base64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fsys := onDisk(t)
			srv := serve(t, imagestore.New(fsys, &imagestore.Options{MaxBytes: int64(maxBytes)}), nil)
			body, contentType := test.form()
			for _, chunked := range []bool{false, true} {
				var r io.Reader = strings.NewReader(body)
				if chunked {
					r = io.MultiReader(r) // hides the length
				}
				got := testhttp.Request(t, "POST", srv.URL+"/images/a", r, "Content-Type", contentType)
				if test.status < 300 {
					if got.StatusCode != 201 && got.StatusCode != 200 {
						t.Errorf("chunked %v: got %s, %s, want success", chunked, got.Status, got.Bytes)
					}
					if got := testhttp.Request(t, "GET", srv.URL+"/images/a", nil); !bytes.Equal(got.Bytes, good) && !bytes.Equal(got.Bytes, exact) {
						t.Errorf("chunked %v: got another image, want the one in the form", chunked)
					}
					continue
				}
				code := map[int]string{400: "bad_request", 413: "too_large", 415: "unsupported_type"}[test.status]
				checkProblem(t, got, test.status, code, test.text)
				if left := files(t, fsys); len(left) > 0 && !slices.Equal(left, []string{".staging"}) {
					t.Errorf("chunked %v: got files %v, want none", chunked, left)
				}
			}
		})
	}
}
