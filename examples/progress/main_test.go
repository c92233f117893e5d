package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

func TestProgress(t *testing.T) {
	srv := testhttp.Serve(t, imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), nil))
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src.png"), filepath.Join(dir, "dst.png")
	png := testimage.PNG(t, 1000, 1)
	if err := os.WriteFile(src, png, 0o666); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, srv.URL, "holiday", src, dst); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, png) {
		t.Errorf("got %d other bytes, %v, want the %d uploaded", len(got), err, len(png))
	}
	for _, want := range []string{"upload 100 %\n", "download 100 %\n", "stored holiday: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got output without %q:\n%s", want, out.String())
		}
	}
	if err := run(t.Context(), &out, srv.URL, "holiday", filepath.Join(dir, "none.png"), dst); err == nil {
		t.Error("got nil for a file that does not exist, want an error")
	}
}
