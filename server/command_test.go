package server

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// TestCommand checks the options that Open gets, and the output.
func TestCommand(t *testing.T) {
	var bucket string
	var got imagestore.Options
	var gotReadOnly bool
	c := Command{
		Name:  "imaged-x",
		About: "keeps images somewhere",
		Flags: func(flags *flag.FlagSet) { flags.StringVar(&bucket, "bucket", "", "`name` of the bucket") },
		Open: func(_ context.Context, opts *imagestore.Options, readOnly bool) (*imagestore.Store, string, error) {
			got, gotReadOnly = *opts, readOnly
			return memStore(), "x://" + bucket, nil
		},
	}
	var out strings.Builder
	if err := c.Run(t.Context(), []string{"-h"}, &out); err != nil || !strings.HasPrefix(out.String(), "imaged-x keeps images somewhere.\n") || !strings.Contains(out.String(), "-bucket name") {
		t.Errorf("-h: got %q, %v, want the usage", out.String(), err)
	}
	out.Reset()
	if err := c.Run(t.Context(), []string{"-verify", "-verify-pixels", "-max-bytes", "7", "-max-pixels", "8", "-max-animation-pixels", "9", "-formats", "jpg, PNG", "-strip", "-bucket", "b"}, &out); err != nil || out.String() != "imaged-x: all 0 images are valid\n" {
		t.Errorf("-verify: got %q, %v, want all valid", out.String(), err)
	}
	want := imagestore.Options{
		Formats:            []imagestore.Format{imagestore.JPEG, imagestore.PNG},
		MaxBytes:           7,
		MaxPixels:          8,
		MaxAnimationPixels: 9,
		StripMetadata:      true,
		VerifyPixels:       true,
	}
	if !reflect.DeepEqual(got, want) || !gotReadOnly || bucket != "b" {
		t.Errorf("-verify: got %+v, %v, %q, want %+v, true, b", got, gotReadOnly, bucket, want)
	}

	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, []string{"-addr", "127.0.0.1:0", "-bucket", "b"}, w)
		w.Close()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "imaged-x: listening on http://127.0.0.1:") || !strings.HasSuffix(line, ", storing in x://b\n") {
		t.Errorf("got line %q, %v, want the listening line", line, err)
	}
	cancel()
	if err := <-ended; err != nil || gotReadOnly {
		t.Errorf("got %v, read-only %v, want nil, false", err, gotReadOnly)
	}
}

// TestFlags checks that a bad flag is refused in one line. The line has the flag, its
// value and the rule.
func TestFlags(t *testing.T) {
	c := Command{Name: "imaged-x", Open: func(context.Context, *imagestore.Options, bool) (*imagestore.Store, string, error) {
		return nil, "", errors.New("the flags have been accepted")
	}}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "the flags have been accepted"},
		{[]string{"-timeout", "24h", "-hosts", "a.example, [::1]:80,b.example:8443", "-addr", ":80"}, "the flags have been accepted"},
		{[]string{"-timeout", "0"}, "-timeout is 0s: it must be from 1ms to 24h, such as 30s"},
		{[]string{"-timeout", "-1s"}, "-timeout is -1s: it must be from 1ms to 24h, such as 30s"},
		{[]string{"-timeout", "1ns"}, "-timeout is 1ns: it must be from 1ms to 24h, such as 30s"},
		{[]string{"-timeout", "24h1s"}, "-timeout is 24h0m1s: it must be from 1ms to 24h, such as 30s"},
		{[]string{"-max-bytes", "0"}, "-max-bytes is 0: it must be at least 1, such as 67108864"},
		{[]string{"-max-bytes", "-1"}, "-max-bytes is -1: it must be at least 1, such as 67108864"},
		{[]string{"-max-bytes", "many"}, `invalid value "many" for flag -max-bytes: parse error (imaged-x -h lists the flags)`},
		{[]string{"-max-pixels", "0"}, "-max-pixels is 0: it must be at least 1, such as 134217728"},
		{[]string{"-max-connections", "0"}, "-max-connections is 0: it must be at least 1, such as 4096"},
		{[]string{"-hosts", "a.example,http://b.example"}, `-hosts has "http://b.example": it must be a host name in ASCII or an address, without scheme, path or pattern, such as b.example`},
		{[]string{"-hosts", ","}, `-hosts has "": it must be a host name in ASCII or an address, without scheme, path or pattern, such as photos.example`},
		{[]string{"-hosts", ":80"}, `-hosts has ":80": it must be a host name in ASCII or an address, without scheme, path or pattern, such as photos.example`},
		{[]string{"-addr", ""}, `-addr is "": it must be host:port, such as 127.0.0.1:8080`},
		{[]string{"-addr", "nonsense"}, `-addr is "nonsense": it must be host:port, such as 127.0.0.1:8080`},
		{[]string{"-port", "80"}, "flag provided but not defined: -port (imaged-x -h lists the flags)"},
		{[]string{"serve"}, `unexpected argument "serve" (imaged-x -h lists the flags)`},
	} {
		if err := c.Run(t.Context(), test.args, new(strings.Builder)); err == nil || err.Error() != test.want {
			t.Errorf("%q:\n got %v\nwant %s", test.args, err, test.want)
		}
	}
}

// A brokenFs fails to open or stat some images.
type brokenFs struct {
	afero.Fs
	open, stat string // ids
	root       bool   // the root cannot be opened
	opened     func() error
}

func (b brokenFs) err(op, name, id string) error {
	if id != "" && path.Dir(name) == id {
		err := error(syscall.EACCES)
		if b.opened != nil {
			err = b.opened()
		}
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (b brokenFs) Stat(name string) (os.FileInfo, error) {
	if err := b.err("stat", name, b.stat); err != nil {
		return nil, err
	}
	return b.Fs.Stat(name)
}

func (b brokenFs) Open(name string) (afero.File, error) {
	if err := b.err("open", name, b.open); err != nil {
		return nil, err
	}
	if b.root && path.Clean(name) == "." {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	return b.Fs.Open(name)
}

func (b brokenFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if err := b.err("open", name, b.open); err != nil {
		return nil, err
	}
	return b.Fs.OpenFile(name, flag, perm)
}

// TestVerify checks that -verify reports invalid and unreadable images separately.
func TestVerify(t *testing.T) {
	b := pixel(t)
	flipped := b[:40] + "x" + b[41:]
	for _, test := range []struct {
		name   string
		images map[string]string
		broken brokenFs
		lines  []string // prefixes of the lines
		err    string
	}{
		{"empty", nil, brokenFs{}, []string{"x: all 0 images are valid"}, ""},
		{"valid", map[string]string{"a": b, "b": b}, brokenFs{}, []string{"x: all 2 images are valid"}, ""},
		{"invalid", map[string]string{"d": b, "c": b[:len(b)-1], "b": flipped, "a": "hello"}, brokenFs{},
			[]string{"a: unsupported image type", "b: invalid image: ", "c: invalid image: "}, "4 images: 3 invalid, 0 cannot be read"},
		{"unreadable", map[string]string{"a": b, "b": b, "c": b}, brokenFs{stat: "a", open: "b"},
			[]string{"a: cannot be read: ", "b: cannot be read: "}, "3 images: 0 invalid, 2 cannot be read"},
		{"both", map[string]string{"a": b[:60], "b": b}, brokenFs{open: "b"},
			[]string{"a: invalid image: ", "b: cannot be read: "}, "2 images: 1 invalid, 1 cannot be read"},
		{"deleted meanwhile", map[string]string{"a": b, "b": b}, brokenFs{open: "a", opened: func() error { return os.ErrNotExist }},
			[]string{"x: all 1 images are valid"}, ""},
		{"no list", map[string]string{"a": b}, brokenFs{root: true}, nil, "verification ended early, 0 images: 0 invalid, 0 cannot be read: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := afero.NewMemMapFs()
			for id, b := range test.images {
				if err := afero.WriteFile(fsys, path.Join(id, "image"), []byte(b), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			test.broken.Fs = fsys
			c := Command{Name: "x", Open: func(_ context.Context, opts *imagestore.Options, _ bool) (*imagestore.Store, string, error) {
				return imagestore.New(afero.NewReadOnlyFs(test.broken), opts), "", nil
			}}
			var out strings.Builder
			err := c.Run(t.Context(), []string{"-verify"}, &out)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if out.Len() == 0 {
				lines = nil
			}
			if len(lines) != len(test.lines) {
				t.Fatalf("got %q, want %q", lines, test.lines)
			}
			for i, want := range test.lines {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got line %q, want %q", lines[i], want)
				}
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestVerifyCannotPrint checks that -verify fails if its findings cannot be printed,
// and does not go on.
func TestVerifyCannotPrint(t *testing.T) {
	for images, want := range map[int]string{0: syscall.EPIPE.Error(), 3: "verification ended early, 1 images: 1 invalid, 0 cannot be read: " + syscall.EPIPE.Error()} {
		fsys := afero.NewMemMapFs()
		for i := range images {
			if err := afero.WriteFile(fsys, path.Join(string(rune('a'+i)), "image"), []byte("hello"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		c := Command{Name: "x", Open: func(_ context.Context, opts *imagestore.Options, _ bool) (*imagestore.Store, string, error) {
			return imagestore.New(fsys, opts), "", nil
		}}
		if err := c.Run(t.Context(), []string{"-verify"}, brokenWriter{}); err == nil || err.Error() != want {
			t.Errorf("%d images: got %v, want %s", images, err, want)
		}
	}
}

// TestVerifyInterrupted cancels -verify while it reads an image. The image must not
// be reported.
func TestVerifyInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fsys := afero.NewMemMapFs()
	if err := afero.WriteFile(fsys, "a/image", []byte(pixel(t)), 0o666); err != nil {
		t.Fatal(err)
	}
	broken := brokenFs{Fs: fsys, open: "a", opened: func() error { cancel(); return ctx.Err() }}
	c := Command{Name: "x", Open: func(context.Context, *imagestore.Options, bool) (*imagestore.Store, string, error) {
		return imagestore.New(broken, nil), "", nil
	}}
	var out strings.Builder
	err := c.Run(ctx, []string{"-verify"}, &out)
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "verification ended early, 0 images: ") || out.Len() > 0 {
		t.Errorf("got %q and %v, want nothing and %v", out.String(), err, context.Canceled)
	}
}
