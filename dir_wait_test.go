package imagestore_test

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
)

// TestWaitingEnds checks that changes wait for another change of the same image
// only until their contexts end.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 3, 1)
	info := put(t, s, "a", b)
	inRename, goOn := make(chan struct{}), make(chan struct{})
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "rename" && op.To == "a/image" {
			close(inRename)
			<-goOn
		}
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() { put(t, s, "a", testimage.PNG(t, 3, 2)) })
	<-inRename
	for name, change := range map[string]func(ctx context.Context) error{
		"put":    func(ctx context.Context) error { _, err := s.Put(ctx, "a", bytes.NewReader(b)); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "a") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		wantError(t, change(ctx), context.DeadlineExceeded, name, "a")
		cancel()
	}
	// Readers and other images do not wait. On Windows readers wait too.
	if runtime.GOOS != "windows" {
		if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
			t.Error("got another image, want the old one")
		}
	}
	wantError(t, s.Delete(t.Context(), "b"), imagestore.ErrNotFound, "delete", "b")
	close(goOn)
	first.Wait()
}

// TestCanceledLate cancels a context after the upload is complete and before the
// rename.
func TestCanceledLate(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", testimage.PNG(t, 3, 1))
	ctx, cancel := context.WithCancel(t.Context())
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "file.sync" {
			cancel()
		}
		return nil
	})
	_, err := s.Put(ctx, "a", bytes.NewReader(testimage.PNG(t, 3, 2)))
	wantError(t, err, context.Canceled, "put", "a")
	if got, _ := get(t, s, "a"); got != info {
		t.Error("got another image, want the old one")
	}
}
