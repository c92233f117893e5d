package s3fs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
	"github.com/spf13/afero"
)

// upstreamFaults are those of UPSTREAM.md, under the same names. Each is shown
// in afero-s3, so that the test says when it is mended there and what is done
// about it here can go, and shown to be absent here.
var upstreamFaults = []struct {
	name     string
	upstream func(*testing.T, *engine, afero.Fs) (faulty bool)
	here     func(*testing.T, *engine)
}{
	{
		"a write that is given up becomes the file",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f, err := up.OpenFile("file", os.O_WRONLY|os.O_CREATE, 0o666)
			if err != nil {
				t.Fatal(err)
			}
			// The writer's source fails here. There is nothing but Close to end it.
			f.Write(text('b', 50))
			f.Close()
			b, err := afero.ReadFile(up, "file")
			return err == nil && bytes.Equal(b, text('b', 50))
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			_, err := e.PutObject(t.Context(), "file", &brokenBody{Reader: bytes.NewReader(text('b', 1<<20)), after: 500_000}, imagestore.Precondition{})
			wantError(t, "PutObject of a body that fails", err, errBody)
			wantOtherError(t, "PutObject of a body that fails", err, imagestore.ErrUnavailable)
			wantContent(t, e, "file", text('a', 100))
		},
	},
	{
		"Stat takes a refusal for a missing file",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			e.wire.interfere(onlyHead(answer(http.StatusForbidden, "AccessDenied")))
			_, err := up.Stat("secret")
			return errors.Is(err, fs.ErrNotExist)
		},
		func(t *testing.T, e *engine) {
			e.wire.interfere(onlyHead(answer(http.StatusForbidden, "AccessDenied")))
			_, err := e.Stat("secret")
			wantOtherError(t, "Stat of what may not be seen", err, fs.ErrNotExist, imagestore.ErrUnavailable)
		},
	},
	{
		"Stat takes a file for a directory while the engine is away",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			e.wire.interfere(onlyHead(answer(http.StatusServiceUnavailable, "SlowDown")))
			fi, err := up.Stat("file")
			return err == nil && fi.IsDir()
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			e.wire.interfere(onlyHead(answer(http.StatusServiceUnavailable, "SlowDown")))
			_, err := e.Stat("file")
			wantError(t, "Stat while the engine is away", err, imagestore.ErrUnavailable)
			wantOtherError(t, "Stat while the engine is away", err, fs.ErrNotExist)
		},
	},
	{
		"the beginning of a name is a directory",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "TestPost/image.png", text('a', 10))
			fi, err := up.Stat("TestPo")
			return err == nil && fi.IsDir()
		},
		func(t *testing.T, e *engine) {
			put(t, e, "TestPost/image.png", text('a', 10))
			_, err := e.Stat("TestPo")
			wantError(t, "Stat of the beginning of a name", err, fs.ErrNotExist)
		},
	},
	{
		"Stat panics for want of a header",
		func(t *testing.T, e *engine, up afero.Fs) (faulty bool) {
			put(t, e, "file", text('a', 10))
			e.wire.interfere(withoutHeader("Last-Modified"))
			defer func() { faulty = recover() != nil }()
			up.Stat("file")
			return false
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 10))
			e.wire.interfere(withoutHeader("Last-Modified"))
			if fi, err := e.Stat("file"); err != nil || fi.Size() != 10 {
				t.Errorf("Stat returns %v, %v", fi, err)
			}
			e.wire.interfere(withoutHeader("Content-Length"))
			_, err := e.Stat("file")
			wantOtherError(t, "Stat of a file of unknown size", err, fs.ErrNotExist)
		},
	},
	{
		"Seek counts from the end in the wrong direction",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			at, err := open(t, up, "file").Seek(-10, io.SeekEnd)
			return err == nil && at == 110
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			f := open(t, e, "file")
			if at, err := f.Seek(-10, io.SeekEnd); err != nil || at != 90 {
				t.Errorf("Seek returns %d, %v", at, err)
			}
			if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, text('a', 100)[90:]) {
				t.Errorf("then Read gives %q, %v", b, err)
			}
		},
	},
	{
		"ReadAt moves where Read goes on",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f := open(t, up, "file")
			f.ReadAt(make([]byte, 10), 50)
			at, err := f.Seek(0, io.SeekCurrent)
			return err == nil && at == 60
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			f := open(t, e, "file")
			if _, err := f.ReadAt(make([]byte, 10), 50); err != nil {
				t.Error(err)
			}
			if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
				t.Errorf("ReadAt has moved the offset to %d, %v", at, err)
			}
		},
	},
	{
		"ReadAt reads less without an error",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 1<<20))
			f := open(t, up, "file")
			n, err := f.ReadAt(make([]byte, 1<<19), 0)
			return n < 1<<19 && err == nil
		},
		func(t *testing.T, e *engine) {
			want := text('a', 1<<20)
			put(t, e, "file", want)
			f := open(t, e, "file")
			got := make([]byte, 1<<19)
			if n, err := f.ReadAt(got, 1000); err != nil || !bytes.Equal(got, want[1000:1000+1<<19]) {
				t.Errorf("ReadAt gives %d bytes, %v", n, err)
			}
			if n, err := f.ReadAt(got, 1<<20-10); n != 10 || err != io.EOF || !bytes.Equal(got[:10], want[1<<20-10:]) {
				t.Errorf("ReadAt at the end gives %d bytes, %v", n, err)
			}
			if n, err := f.ReadAt(got, 1<<20); n != 0 || err != io.EOF {
				t.Errorf("ReadAt after the end gives %d bytes, %v", n, err)
			}
		},
	},
	{
		"a file that is open becomes another one when it is replaced",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f := open(t, up, "file")
			put(t, e, "file", text('b', 200))
			b, err := io.ReadAll(f)
			return err == nil && bytes.Equal(b, text('b', 200)[:100]) // half of the new one, and no error
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			f := open(t, e, "file")
			put(t, e, "file", text('b', 200))
			if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, text('a', 100)) {
				t.Errorf("Read gives %d bytes, %v", len(b), err)
			}
			for _, change := range []string{"replaced", "removed"} {
				if _, err := f.Seek(50, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				n, err := f.Read(make([]byte, 10))
				if n != 0 {
					t.Errorf("after the file was %s, Read gives %d bytes", change, n)
				}
				wantError(t, "Read of a file that was "+change, err, s3fs.ErrChanged)
				_, err = f.ReadAt(make([]byte, 10), 0)
				wantError(t, "ReadAt of a file that was "+change, err, s3fs.ErrChanged)
				e.Remove("file")
			}
		},
	},
	{
		"a body that ends too early is continued with another version",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f := open(t, up, "file")
			e.wire.interfere(cutOnce(50, io.EOF, func() { put(t, e, "file", text('b', 100)) }))
			b, err := io.ReadAll(f)
			return err == nil && bytes.Equal(b, append(text('a', 100)[:50], text('b', 100)[50:]...))
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			e.wire.interfere(cutOnce(50, io.EOF, func() { put(t, e, "file", text('b', 100)) }))
			f := open(t, e, "file")
			b, err := io.ReadAll(f)
			if !bytes.Equal(b, text('a', 100)[:len(b)]) {
				t.Errorf("Read gives %d bytes that are not those of the file", len(b))
			}
			wantOtherError(t, "Read of a body that ends too early", err, io.EOF)
			_, err = f.Read(make([]byte, 10))
			wantError(t, "the Read after it", err, s3fs.ErrChanged)
		},
	},
	{
		"a file can be read after Close",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f := open(t, up, "file")
			f.Close()
			n, err := f.Read(make([]byte, 10))
			return n > 0 && err == nil // and that body nobody closes
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			f := open(t, e, "file")
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			_, err := f.Read(make([]byte, 10))
			wantError(t, "Read after Close", err, fs.ErrClosed)
			_, err = f.ReadAt(make([]byte, 10), 0)
			wantError(t, "ReadAt after Close", err, fs.ErrClosed)
			_, err = f.Seek(0, io.SeekStart)
			wantError(t, "Seek after Close", err, fs.ErrClosed)
			wantError(t, "Close after Close", f.Close(), fs.ErrClosed)
		},
	},
	{
		"Write panics where it cannot write",
		func(t *testing.T, e *engine, up afero.Fs) (faulty bool) {
			put(t, e, "file", text('a', 100))
			f := open(t, up, "file")
			defer func() { faulty = recover() != nil }()
			f.Write([]byte("x"))
			return false
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			_, err := open(t, e, "file").Write([]byte("x"))
			wantError(t, "Write", err, errors.ErrUnsupported)
		},
	},
	{
		"requests have no end",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			endless := false
			e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				endless = r.Context().Done() == nil
				return next.RoundTrip(r)
			})
			up.Stat("file")
			return endless
		},
		func(t *testing.T, e *engine) {
			e.wire.interfere(func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			e.SetPatience(10e6)
			_, err := e.Stat("file")
			wantError(t, "Stat while the engine keeps still", err, imagestore.ErrUnavailable)
		},
	},
	{
		"O_EXCL is ignored",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f, err := up.OpenFile("file", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if err == nil {
				err = f.Close()
			}
			return err == nil
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 100))
			_, err := e.OpenFile("file", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			wantError(t, "OpenFile for writing", err, errors.ErrUnsupported)
			_, err = e.PutObject(t.Context(), "file", strings.NewReader("x"), imagestore.IfAbsent())
			wantError(t, "PutObject with IfAbsent", err, imagestore.ErrPrecondition)
		},
	},
	{
		"Create shows readers an empty file",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 100))
			f, err := up.Create("file")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fi, err := e.Stat("file")
			return err == nil && fi.Size() == 0
		},
		func(t *testing.T, e *engine) {
			_, err := e.Create("file")
			wantError(t, "Create", err, errors.ErrUnsupported)
			wantNothing(t, e)
		},
	},
	{
		"Mkdir makes an object",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			if err := up.Mkdir("dir", 0o777); err != nil {
				t.Fatal(err)
			}
			return len(list(t, e, "")) == 1
		},
		func(t *testing.T, e *engine) {
			if err := errors.Join(e.Mkdir("dir", 0o777), e.MkdirAll("a/b", 0o777)); err != nil {
				t.Error(err)
			}
			wantNothing(t, e)
		},
	},
	{
		"Rename copies another file",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "50%41", text('a', 10))
			put(t, e, "50A", text('b', 10))
			err := up.Rename("50%41", "new")
			b, readErr := afero.ReadFile(e, "new")
			_, statErr := e.Stat("50%41")
			return errors.Join(err, readErr) == nil && bytes.Equal(b, text('b', 10)) && errors.Is(statErr, fs.ErrNotExist)
		},
		func(t *testing.T, e *engine) {
			put(t, e, "50%41", text('a', 10))
			wantError(t, "Rename", e.Rename("50%41", "new"), errors.ErrUnsupported)
			wantContent(t, e, "50%41", text('a', 10))
		},
	},
	{
		"RemoveAll of a file does nothing",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "file", text('a', 10))
			err := up.RemoveAll("file")
			_, statErr := e.Stat("file")
			return err == nil && statErr == nil
		},
		func(t *testing.T, e *engine) {
			wantError(t, "RemoveAll", e.RemoveAll("file"), errors.ErrUnsupported)
		},
	},
	{
		"Readdir of everything ends with io.EOF the second time",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			put(t, e, "dir/file", text('a', 10))
			f := open(t, up, "dir")
			if _, err := f.Readdirnames(-1); err != nil {
				t.Fatal(err)
			}
			_, err := f.Readdirnames(-1)
			return err == io.EOF
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 10))
			_, err := open(t, e, "file").Readdirnames(-1)
			wantError(t, "Readdirnames", err, errors.ErrUnsupported)
		},
	},
	{
		"Readdir returns neither entries nor an error",
		func(t *testing.T, e *engine, up afero.Fs) bool {
			if err := up.Mkdir("dir", 0o777); err != nil {
				t.Fatal(err)
			}
			entries, err := open(t, up, "dir").Readdir(10)
			return len(entries) == 0 && err == nil
		},
		func(t *testing.T, e *engine) {
			put(t, e, "file", text('a', 10))
			_, err := open(t, e, "file").Readdir(10)
			wantError(t, "Readdir", err, errors.ErrUnsupported)
		},
	},
	{
		"a slash at the beginning makes another file",
		func(t *testing.T, e *engine, _ afero.Fs) bool {
			up := prefixed{e.upstream().(prefixed).Fs, "/" + e.prefix + "/"}
			f, err := up.OpenFile("file", os.O_WRONLY|os.O_CREATE, 0o666)
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			key := aws.String("/" + e.prefix + "/file")
			_, err = e.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &e.bucket, Key: key})
			e.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &e.bucket, Key: key})
			_, statErr := e.Stat("file")
			return err == nil && errors.Is(statErr, fs.ErrNotExist)
		},
		func(t *testing.T, e *engine) {
			for _, name := range []string{"/dir/file", "dir//file", "../dir/file", "./dir/./file"} {
				put(t, e, name, text('a', 10))
			}
			if got := list(t, e, ""); len(got) != 1 || got[0] != "dir/file" {
				t.Errorf("the files are %q", got)
			}
		},
	},
}

func TestUpstreamFaults(t *testing.T) {
	for _, test := range upstreamFaults {
		t.Run(test.name, func(t *testing.T) {
			t.Run("in afero-s3", func(t *testing.T) {
				e := newEngine(t)
				if !test.upstream(t, e, e.upstream()) {
					t.Error("afero-s3 has mended this or does it otherwise: look at UPSTREAM.md and at what is done about it here")
				}
			})
			t.Run("not here", func(t *testing.T) { test.here(t, newEngine(t)) })
		})
	}
}

func TestUpstreamDocument(t *testing.T) {
	doc, err := os.ReadFile("UPSTREAM.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range upstreamFaults {
		if !strings.Contains(string(doc), "\n## "+test.name+"\n") {
			t.Errorf("UPSTREAM.md has nothing about %q", test.name)
		}
	}
	if got := strings.Count(string(doc), "\n## "); got != len(upstreamFaults) {
		t.Errorf("UPSTREAM.md has %d sections; there are %d tests", got, len(upstreamFaults))
	}
}

var errBody = errors.New("the source has failed")

// A brokenBody fails when it is read for the second time, that is while it is
// sent and not when its checksum is made.
type brokenBody struct {
	*bytes.Reader
	after int64
	reads int
}

func (b *brokenBody) Seek(offset int64, whence int) (int64, error) {
	if offset == 0 && whence == io.SeekStart {
		b.reads++
	}
	return b.Reader.Seek(offset, whence)
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if at := b.Size() - int64(b.Len()); b.reads > 1 && at >= b.after {
		return 0, errBody
	}
	return b.Reader.Read(p)
}

type fault = func(*http.Request, http.RoundTripper) (*http.Response, error)

// onlyHead is a fault of the HEAD requests for objects.
func onlyHead(f fault) fault {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if kind(r) == http.MethodHead {
			return f(r, next)
		}
		return next.RoundTrip(r)
	}
}

func withoutHeader(name string) fault {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Header.Del(name)
		}
		return resp, err
	}
}

// cutOnce ends the first body that comes back after n bytes, with err, and
// calls then.
func cutOnce(n int64, err error, then func()) fault {
	done := false
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, rtErr := next.RoundTrip(r)
		if rtErr == nil && r.Method == http.MethodGet && !done {
			done = true
			resp.Body = &cutBody{resp.Body, n, err, then}
		}
		return resp, rtErr
	}
}

type cutBody struct {
	io.ReadCloser
	left int64
	err  error
	then func()
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.then != nil {
			b.then()
			b.then = nil
		}
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func list(t *testing.T, fsys imagestore.ObjectFs, after string) (names []string) {
	t.Helper()
	for fi, err := range fsys.ListObjects(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fi.Name())
	}
	return names
}

func wantNothing(t *testing.T, fsys imagestore.ObjectFs) {
	t.Helper()
	if got := list(t, fsys, ""); len(got) > 0 {
		t.Errorf("now there are %q", got)
	}
}
