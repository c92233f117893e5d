// Package storetest is the conformance suite of image stores. Each function
// tests one kind of part:
//
//   - [TestFs]: a filesystem for a Store;
//   - [TestDriver]: an imagestore.Driver;
//   - [TestStore]: a Store, a Client, or another type with their methods;
//   - [TestHandler]: a mounted handler, over HTTP.
//
// For example:
//
//	func TestMyFs(t *testing.T) {
//		storetest.TestFs(t, func(t *testing.T) afero.Fs { return myfs.New(t.TempDir()) })
//	}
//
// Every promise is a subtest with a plain name. Its failure names the likely
// cause. A log line that begins with "quirk:" reports something unusual that
// does no harm. The subtests of all but TestHandler run in parallel.
package storetest

import (
	"io"
	"runtime/debug"
	"testing"

	"github.com/ba692904/imagestore/internal/testimage"
)

// PNG returns a grayscale PNG of side × side pixels. Its pixels are random and
// stored uncompressed, so images of one side have one size. Every seed gives
// another image.
func PNG(tb testing.TB, side int, seed uint64) []byte {
	tb.Helper()
	return testimage.PNG(tb, side, seed)
}

// A test is one subtest of a suite for a T.
type test[T any] struct {
	name  string
	cause string // the usual cause of a failure on a filesystem
	run   func(*testing.T, T)
}

// runAll runs tests as subtests of group, in parallel and each on a new T. It returns
// when all are done.
func runAll[T any](t *testing.T, group string, tests []test[T], newT func(*testing.T) T) {
	t.Run(group, func(t *testing.T) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				defer func() {
					if t.Failed() && test.cause != "" {
						t.Log("the usual cause on a filesystem: " + test.cause)
					}
				}()
				guarded(t, func() { test.run(t, newT(t)) })
			})
		}
	})
}

// guarded runs a test. It turns a panic into a failure, so that the other tests still
// run.
func guarded(t *testing.T, run func()) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	run()
}

// quirk reports something unusual that does no harm.
func quirk(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("quirk: "+format, args...)
}

// text returns n bytes c.
func text(c byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = c
	}
	return b
}

// readAllAndClose reads the rest of an image or a file, and closes it.
func readAllAndClose(r io.ReadCloser) ([]byte, error) {
	b, err := io.ReadAll(r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return b, err
}
