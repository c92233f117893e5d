package imagestore_test

import (
	"bytes"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// TestConcurrentDelete makes another process delete, and put, between the steps of
// a change.
func TestConcurrentDelete(t *testing.T) {
	t.Parallel()
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	// The other process removes the directory before the rename.
	taken := 0
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "rename" && taken < 3 {
			taken++
			return base.Remove("a")
		}
		return nil
	})
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) || taken != 3 {
		t.Errorf("got another image after %d removals, want the one that was put after 3", taken)
	}
	// The other process puts an image while this one deletes.
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "remove" && op.Path == "a" {
			return afero.WriteFile(base, "a/image", b, 0o666)
		}
		return nil
	})
	must(t, s.Delete(t.Context(), "a"))
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
		t.Error("got another image, want that of the other process")
	}
	// The other process deletes the image first.
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "remove" && op.Path == "a/image" {
			return base.RemoveAll("a")
		}
		return nil
	})
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "delete", "a")
}

// TestConcurrentPut makes another process put an image right after Delete has
// removed the old one.
func TestConcurrentPut(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		age         time.Duration // of the other image
		conditional bool          // Delete is for one version only
		deleted     bool          // the other process deletes its image again
		stays       bool
	}{
		// An older image may have been there before Delete: in a lower layer of a
		// union filesystem, or staged by the other process.
		{"older", time.Second, false, false, false},
		{"older, and not the version that was meant", time.Second, true, false, true},
		{"older, and deleted again", time.Second, false, true, false},
		{"newer", -time.Second, false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			base := onDisk(t)
			fsys := errorfs.New(base)
			s := imagestore.New(fsys, nil)
			b := testimage.PNG(t, 3, 1)
			info := put(t, s, "a", b)
			removes := 0
			fsys.FailIf(func(op errorfs.Op) error {
				if op.Name == "remove" && op.Path == "a/image" {
					if removes++; removes == 2 && test.deleted {
						must(t, base.Remove("a/image"))
					}
				}
				if op.Name == "lstat" && op.Path == "a/image" && removes == 1 {
					at := time.Now().Add(-test.age)
					must(t, afero.WriteFile(base, "a/image", b, 0o666))
					must(t, base.Chtimes("a/image", at, at))
				}
				return nil
			})
			var conds []imagestore.Condition
			if test.conditional {
				conds = append(conds, imagestore.IfMatch(info.ETag))
			}
			must(t, s.Delete(t.Context(), "a", conds...)) // succeeds: it deleted one
			if _, err := base.Stat("a/image"); (err == nil) != test.stays {
				t.Errorf("got %v for the other image, want it kept: %v", err, test.stays)
			}
		})
	}
}

// TestConcurrentNotEmpty makes another process put an image when Delete is about to
// remove the directory, and delete it right after.
func TestConcurrentNotEmpty(t *testing.T) {
	t.Parallel()
	for _, rmdir := range []bool{false, true} {
		base := onDisk(t)
		fsys := errorfs.New(base)
		s := imagestore.New(fsys, nil)
		b := testimage.PNG(t, 3, 1)
		put(t, s, "a", b)
		refused := false
		fsys.FailIf(func(op errorfs.Op) error {
			if op.Name == "remove" && op.Path == "a" {
				refused = true
				return afero.WriteFile(base, "a/image", b, 0o666)
			}
			if op.Name == "open" && op.Path == "a" && refused {
				refused = false
				must(t, base.Remove("a/image"))
				if rmdir {
					must(t, base.Remove("a"))
				}
			}
			return nil
		})
		must(t, s.Delete(t.Context(), "a"))
	}
	// The other process removes the directory before Delete does.
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "open" && op.Path == "a" {
			base.Remove("a")
		}
		return nil
	})
	must(t, s.Delete(t.Context(), "a"))
}

// TestFailedRename checks that a failed Put leaves no directory behind, and that
// Put ends when the staged file is gone.
func TestFailedRename(t *testing.T) {
	t.Parallel()
	for _, swept := range []bool{false, true} {
		base := onDisk(t)
		fsys := errorfs.New(base)
		s := imagestore.New(fsys, nil)
		fsys.FailIf(func(op errorfs.Op) error {
			switch {
			case op.Name == "rename" && swept:
				return base.Remove(op.Path)
			case op.Name == "rename":
				return syscall.EIO
			}
			return nil
		})
		if _, err := s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3, 1))); err == nil {
			t.Error("got no error, want one")
		}
		if left := files(t, base); !slices.Equal(left, []string{".staging"}) {
			t.Errorf("got files %v, want .staging alone", left)
		}
		if n := len(fsys.Trace()); n > 25 {
			t.Errorf("got %d operations, want at most 25", n)
		}
	}
}
