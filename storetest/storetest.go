// Package storetest tells whether what is around an image store lets it keep
// its promises: [TestFs] asks a filesystem that a Store is to work on,
// [TestHandler] asks a server that a handler is mounted in.
//
//	func TestMyFs(t *testing.T) {
//		storetest.TestFs(t, func(t *testing.T) afero.Fs { return myfs.New(t.TempDir()) })
//	}
//
// Every promise is a subtest of its own, whose name is a plain sentence and
// whose failure says what is likely to be at fault.
package storetest

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime/debug"
	"syscall"
	"testing"

	"github.com/spf13/afero"
)

// picture returns a PNG of side × side pixels that does not compress and that
// is another one for every seed.
func picture(t *testing.T, side int, seed uint64) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, side, side))
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// guarded runs a test that calls code of others and turns a panic of theirs
// into a failure, so that the other tests still have their say.
func guarded(t *testing.T, run func()) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("the filesystem panics: %v\n%s", p, debug.Stack())
		}
	}()
	run()
}

// quirk tells of what is unusual, but does no harm.
func quirk(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("quirk: "+format, args...)
}

// isMissing and isUnsupported read errors as a Store does.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func isUnsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}

// readFile reads a file as a reader of an image does.
func readFile(fsys afero.Fs, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}
