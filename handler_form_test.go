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
	"github.com/spf13/afero"
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
	many := make([]part, 1000)
	for i := range many {
		many[i] = field(fmt.Sprint("f", i), "a short value")
	}
	mebibyte := field("a", strings.Repeat("x", 1<<20+8<<10)) // package multipart reads up to 4 KiB ahead
	broken := bytes.Clone(good)
	broken[len(broken)-20] ^= 1
	disposition := func(s string) part {
		return part{textproto.MIMEHeader{"Content-Disposition": {s}}, string(good)}
	}
	// ending returns a form with another end than the right one, "\r\n--boundary--\r\n".
	ending := func(image []byte, end string) (string, string) {
		b, ct := form(t, file("file", image))
		_, boundary, _ := strings.Cut(ct, "boundary=")
		return strings.TrimSuffix(b, "\r\n--"+boundary+"--\r\n") + strings.ReplaceAll(end, "boundary", boundary), ct
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
		{"many parts", func() (string, string) { return form(t, append(many, file("file", good))...) }, 201, ""},
		{"many parts after it", func() (string, string) { return form(t, append([]part{file("file", good)}, many...)...) }, 201, ""},
		{"JSON", func() (string, string) {
			return form(t, field("json", `["`+strings.Repeat("x", 40<<10)+`"]`), file("file", good), field("json", strings.Repeat("x", 40<<10)))
		}, 201, ""},
		{"almost too much", func() (string, string) {
			return form(t, field("a", mebibyte.body[:1<<19]), file("file", exact), field("b", mebibyte.body[:1<<19-2000]))
		}, 201, ""},
		{"too much before it", func() (string, string) { return form(t, mebibyte, file("file", good)) }, 400, "more than 1048576 bytes besides the file"},
		{"too much after it", func() (string, string) { return form(t, file("file", good), mebibyte) }, 400, "more than 1048576 bytes besides the file"},
		{"too much around it", func() (string, string) {
			return form(t, field("a", mebibyte.body[:1<<19]), file("file", good), field("a", mebibyte.body[:1<<19+8<<10]))
		}, 400, "more than 1048576 bytes besides the file"},
		{"too much after the end", func() (string, string) { b, ct := form(t, file("file", good)); return b + mebibyte.body, ct }, 400, "besides the file"},
		{"a large header", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "X": {strings.Repeat("x", 15_000)}}, string(good)})
		}, 201, ""},
		{"a giant header", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "X": {strings.Repeat("x", 30_000)}}, string(good)})
		}, 400, "more than 16384 bytes"},
		{"a giant header after it", func() (string, string) {
			return form(t, file("file", good), part{textproto.MIMEHeader{"X": {strings.Repeat("x", 30_000)}}, ""})
		}, 400, "more than 16384 bytes"},
		{"a dash too few at the end", func() (string, string) { return ending(good, "\r\n--boundary-\r\n") }, 400, "last line"},
		{"no line break before the end", func() (string, string) { return ending(good, "--boundary--\r\n") }, 400, "last line"},
		{"another boundary at the end", func() (string, string) { return ending(good, "\r\n--x--\r\n") }, 400, "last line"},
		{"no end of its own", func() (string, string) { return ending(good, "") }, 400, "last line"},
		{"a boundary at the end", func() (string, string) { return ending(good, "\r\n--boundary\r\n") }, 201, ""}, // as package multipart takes it
		{"bytes after the image", func() (string, string) { return ending(append(bytes.Clone(good), "xx"...), "\r\n--boundary--\r\n") }, 422, ""},
		{"a broken image", func() (string, string) { return form(t, file("file", broken), field("a", "b")) }, 422, ""},
		{"a broken image in a broken form", func() (string, string) { return ending(broken, "--boundary--\r\n") }, 400, "last line"},
		{"a GIF in a broken form", func() (string, string) { return ending([]byte("GIF89a and so on"), "--boundary--\r\n") }, 415, "GIF"},
		{"an empty file", func() (string, string) { return form(t, file("file", nil)) }, 415, ""},
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
				code := map[int]string{400: "bad_request", 413: "too_large", 415: "unsupported_type", 422: "invalid_image"}[test.status]
				checkProblem(t, got, test.status, code, test.text)
				if left := files(t, fsys); len(left) > 0 && !slices.Equal(left, []string{".staging"}) {
					t.Errorf("chunked %v: got files %v, want none", chunked, left)
				}
			}
		})
	}
}

// TestBoundary sends forms whose Content-Type many parsers refuse.
func TestBoundary(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(afero.NewMemMapFs(), nil), nil)
	good := testimage.PNG(t, 10, 1)
	for _, test := range []struct{ contentType, boundary string }{
		{`multipart/form-data; boundary=abc`, "abc"},
		{`multipart/form-data; boundary="a b"`, "a b"},
		{`multipart/form-data;boundary="-----=_Part;1"; charset=utf-8`, "-----=_Part;1"},
		{`Multipart/Form-Data; BOUNDARY=abc`, "abc"},
		{`multipart/form-data; boundary=abc;`, "abc"},
		{`multipart/form-data; boundary=abc; ;`, "abc"},
		{`multipart/form-data; boundary=abc;;charset=utf-8`, "abc"},
		{`multipart/form-data;; boundary=abc`, "abc"},
		{`multipart/form-data; charset; boundary=abc`, "abc"},
		{`multipart/form-data; boundary================1234567890123456789==`, "===============1234567890123456789=="}, // Python's email
		{`multipart/form-data; boundary====1656457491496===`, "===1656457491496==="},
		{`multipart/form-data; boundary=----=_Part_10_4245465.1397723989380`, "----=_Part_10_4245465.1397723989380"}, // JavaMail
		{`multipart/form-data; boundary=b/QeEbFgqK9PCZo4T/eXv7f.T74SHd5MxCZ846`, "b/QeEbFgqK9PCZo4T/eXv7f.T74SHd5MxCZ846"},
		{`multipart/form-data; boundary=a?b(c):d,e`, "a?b(c):d,e"},
		{`multipart/form-data; boundary=a=b ; charset=utf-8`, "a=b"},
		{`multipart/form-data; Boundary="a=b;c"; charset=a=b`, "a=b;c"},
		{`multipart/form-data; boundary="abc`, "abc"},
		{`multipart/form-data, boundary=AaB03x`, "AaB03x"}, // RFC 1867
		{`multipart/form-data boundary=abc`, "abc"},
		{`multipart/form-data; x-boundary=a=b; boundary=abc`, "abc"},
		{`multipart/form-data; boundary=`, ""},
		{`multipart/form-data; boundary=;`, ""},
		{`multipart/form-data; boundary=""`, ""},
		{`multipart/form-data; charset=a=b`, ""},
		{`multipart/form-data; xboundary=a=b`, ""},
		{`multipart/form-data; é boundar`, ""},
	} {
		body, contentType := form(t, file("file", good))
		boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
		body = strings.ReplaceAll(body, boundary, test.boundary)
		got := testhttp.Request(t, "POST", srv.URL+"/images", strings.NewReader(body), "Content-Type", test.contentType)
		switch {
		case test.boundary == "":
			checkProblem(t, got, 400, "bad_request", "no boundary")
		case got.StatusCode != 201:
			t.Errorf("%s: got %s, %s, want 201", test.contentType, got.Status, got.Bytes)
		}
	}
}

// TestDisposition sends forms whose part has an unusual Content-Disposition. The name
// alone matters.
func TestDisposition(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(afero.NewMemMapFs(), nil), nil)
	send := func(disposition string) testhttp.Answer {
		body, contentType := form(t, part{textproto.MIMEHeader{"Content-Disposition": {disposition}}, string(testimage.PNG(t, 10, 1))})
		return testhttp.Request(t, "POST", srv.URL+"/images", strings.NewReader(body), "Content-Type", contentType)
	}
	for _, disposition := range []string{
		`form-data; name="file"; filename="shot.png"`,
		`form-data; name="file"; filename="a%22b%0D%0A.png"`,                 // browsers
		`form-data; name="file"; filename="a\"b\\c.png"`,                     // old versions of curl
		`form-data; name="file"; filename*=UTF-8''%E2%82%AC.png`,             // requests
		`form-data; name=file; filename=shot.png; filename*=utf-8''shot.png`, // .NET
		`form-data; name=file; filename="=?utf-8?B?w6QucG5n?="`,              // .NET
		`form-data; name="file"; filename="日本.png"`,                          // browsers, PHP
		`form-data; name*=UTF-8''file; filename="shot.png"`,                  // RFC 5987
		`form-data;name="file";filename="shot.png"`,
		`Form-Data; NAME="file"; FileName="shot.png"`,
		`form-data; filename="shot.png"; name="file"`,
		`form-data; name="file"; filename=""`, // browsers, if no file is chosen
		`form-data; name="file";`,
		`attachment; name="file"; filename="shot.png"`,
		`form-data; name='file'`,

		// What package mime cannot parse.
		`form-data; name="file"; filename="my "best" shot.png"`, // Alamofire
		`form-data; name="file"; filename="""`,
		`form-data; name="file"; filename=my shot.png`, // Play
		`form-data; name=file; filename=日本.png`,
		`form-data; name="file"; filename=a(1).png`,
		`form-data; name="file"; filename="C:\dir\"`, // akka-http
		`form-data; name="file"; filename="shot.png`,
		`form-data; NAME = "file" ; filename=my shot.png`,
		`form-data; name=file ; filename=my shot.png`,
		`form-data; name="file"; filename="a.png"; filename="b.png"`,
		`form-data; name="file"; name="other"`,
		`form-data; filename="my "best" shot.png"; name="file"`,
		`form-data; filename="C:\dir\"; name="file"`,
		`form-data; filename="my "best; name=x" shot.png"; name="file"`,
		`form-data; filename= "a; name=x"; name="file"; y=a b`,
		`form-data; filename=my shot.png; name=file`,
		`form-data; filename=my shot.png; attachment; name="file"`,
		`form-data; name='file'; filename='my shot.png'`,
		`multipart/form-data; name=file; filename=my shot.png`, // multiparty
	} {
		if got := send(disposition); got.StatusCode != 201 {
			t.Errorf("%s: got %s, %s, want 201", disposition, got.Status, got.Bytes)
		}
	}
	for disposition, name := range map[string]string{
		`form-data; name="other"; filename="a; name=file"`:                     "other",
		`form-data; name="other"; filename="my "best"; name="file"; shot.png"`: "other",
		`form-data; filename="a\"; name=file; b"`:                              "", // an escaped quote
		`form-data; filename="a; name="file"; b"`:                              "",
		`form-data; filename=a b; name`:                                        "",
		`form-data; filename=a b; name=`:                                       "",
		`form-data; filename=a b; firstname="file"; name2=file`:                "",
		`form-data; filename=a b; name="File"`:                                 "File",
		`form-data; filename="name=file`:                                       "",
		`name=file`:                                                            "",
	} {
		checkProblem(t, send(disposition), 400, "bad_request", fmt.Sprintf("these came: %q", name))
	}
}
