package formfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/formfile"
)

// TestFirstByte checks that a Reader asks for one byte first. It takes its buffers
// when that has come.
func TestFirstByte(t *testing.T) {
	asked := 0
	r := formfile.New(readerFunc(func(p []byte) (int, error) {
		asked = len(p)
		return 0, iotest.ErrTimeout
	}), "b", "file")
	defer r.Close()
	if _, err := r.Read(make([]byte, 100)); err != iotest.ErrTimeout || asked != 1 {
		t.Errorf("got %v from a Read of %d bytes, want %v from one of 1", err, asked, iotest.ErrTimeout)
	}
}

// TestFewReads checks that a large form is read in large pieces.
func TestFewReads(t *testing.T) {
	file := strings.Repeat("x", 10<<20)
	body := strings.NewReader("--b\r\nContent-Disposition: form-data; name=file\r\n\r\n" + file + "\r\n--b--\r\n")
	reads := 0
	r := formfile.New(readerFunc(func(p []byte) (int, error) {
		reads++
		return body.Read(p)
	}), "b", "file")
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != file {
		t.Errorf("got %d bytes, %v, want the file", len(got), err)
	}
	if most := 200; reads > most {
		t.Errorf("got %d Reads of the body, want at most %d", reads, most)
	}
}

// TestHeaderIsReleased checks that a Reader does not hold the header of the file's
// part, which takes several times its size.
func TestHeaderIsReleased(t *testing.T) {
	var header strings.Builder
	for i := range 1400 {
		fmt.Fprintf(&header, "h%d: 1\r\n", i)
	}
	body := "--b\r\nContent-Disposition: form-data; name=file\r\n" + header.String() + "\r\nimage\r\n--b--\r\n"
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	readers := make([]*formfile.Reader, 100)
	for i := range readers {
		readers[i] = formfile.New(strings.NewReader(body), "b", "file")
		if _, err := readers[i].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if got, most := (heap()-before)/uint64(len(readers)), uint64(16<<10); got > most {
		t.Errorf("got %d bytes for a Reader in the file, want at most %d", got, most)
	}
	runtime.KeepAlive(readers)
}

// TestWrap reads the file through another reader. Its errors must arrive as they are.
func TestWrap(t *testing.T) {
	const body = "--b\r\nContent-Disposition: form-data; name=a\r\nX: no\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=file\r\nx: yes\r\n\r\nimage\r\n--b--\r\n"
	broken := errors.New("broken")
	for _, test := range []struct {
		wrap func(file io.Reader) (io.Reader, error)
		body string
		want string
		err  error
	}{
		{func(file io.Reader) (io.Reader, error) { return io.MultiReader(file, strings.NewReader("!")), nil }, body, "image!", nil},
		{func(file io.Reader) (io.Reader, error) { return io.MultiReader(file, iotest.ErrReader(broken)), nil }, body, "image", broken},
		{func(file io.Reader) (io.Reader, error) { return nil, broken }, body, "", broken},
		{func(file io.Reader) (io.Reader, error) { return file, nil }, strings.TrimSuffix(body, "--\r\n"), "image", io.EOF},
		{func(file io.Reader) (io.Reader, error) { return file, nil }, strings.TrimSuffix(body, "\r\n--b--\r\n"), "image", io.ErrUnexpectedEOF},
	} {
		r := formfile.New(strings.NewReader(test.body), "b", "file")
		defer r.Close()
		r.Wrap = func(header textproto.MIMEHeader, file io.Reader) (io.Reader, error) {
			if got := header.Get("X"); got != "yes" {
				t.Errorf("got X %q, want that of the file", got)
			}
			return test.wrap(file)
		}
		if b, err := io.ReadAll(r); string(b) != test.want || (err == nil) != (test.err == nil) || !errors.Is(err, test.err) {
			t.Errorf("got %q, %v, want %q, %v", b, err, test.want, test.err)
		}
	}
}

// FuzzReader checks that a Reader reads every form that package multipart reads, and
// reads the same.
func FuzzReader(f *testing.F) {
	for _, body := range []string{
		"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nimage\r\n--b--\r\n",
		"before\r\n--b \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=file\r\nX: y\r\n z\r\n\r\n\r\n--b--after",
		"--b\nContent-Disposition: form-data; name=file\n\nimage\n--b\n",
		"--b\r\nContent-Disposition: form-data; name=file\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41=\r\nb\r\n--b--",
		"--b\r\nContent-Disposition: attachment; name=file\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=file\r\n\r\n2\r\n--b--",
		"--b\r\nContent-Disposition: form-data; name=file; filename=a b\r\n\r\n1\r\n--b-\r\n",
		"--b--", "", "-",
	} {
		f.Add([]byte(body), "b")
	}
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		if len(body) > 16<<10 {
			return // a header may be too long
		}
		read := func(body io.Reader) (string, error) {
			r := formfile.New(body, boundary, "file")
			defer r.Close()
			b, err := io.ReadAll(r)
			_ = r.CheckEnd(100)
			return string(b), err
		}
		got, err := read(bytes.NewReader(body))
		if slow, slowErr := read(iotest.OneByteReader(bytes.NewReader(body))); slow != got || (slowErr == nil) != (err == nil) {
			t.Errorf("got %q, %v byte by byte, want %q, %v", slow, slowErr, got, err)
		}
		if err != nil {
			if _, ok := errors.AsType[*formfile.Error](err); !ok {
				t.Errorf("got %v, want an *Error", err)
			}
		}
		if want, ok := reference(bytes.NewReader(body), boundary); ok && (err != nil || got != want) {
			if err != nil && strings.Contains(err.Error(), "more than one") {
				return // the name of another part is not read by package multipart
			}
			t.Errorf("got %q, %v, want %q as package multipart reads it", got, err, want)
		}
	})
}

// reference returns the only part named "file" of a form that is in order.
func reference(body io.Reader, boundary string) (file string, ok bool) {
	form := multipart.NewReader(body, boundary)
	for {
		part, err := form.NextPart()
		if err != nil {
			return file, ok && err == io.EOF
		}
		b, err := io.ReadAll(part)
		if err != nil {
			return "", false
		}
		if part.FormName() == "file" {
			if ok {
				return "", false
			}
			file, ok = string(b), true
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
