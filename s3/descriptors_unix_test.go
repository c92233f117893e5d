//go:build unix

package s3_test

import (
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
)

// TestNoDescriptors lets the process open no more files.
func TestNoDescriptors(t *testing.T) {
	svc := newService(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err := svc.Create(t.Context())
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	wantError(t, "Create", err, imagestore.ErrUnavailable)
}
