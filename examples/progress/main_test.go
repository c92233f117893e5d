package main

import (
	"bytes"
	"image"
	"image/png"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

func TestProgress(t *testing.T) {
	server := httptest.NewServer(imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), nil))
	defer server.Close()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src.png"), filepath.Join(dir, "dst.png")
	var b, out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.NoCompression}
	if err := encoder.Encode(&b, image.NewRGBA(image.Rect(0, 0, 500, 500))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), &out, server.URL, "holiday", src, dst); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("what came back is not what was sent: %d bytes, %v", len(got), err)
	}
	for _, want := range []string{"upload 100 %\n", "download 100 %\n", "stored holiday: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not show %q:\n%s", want, out.String())
		}
	}
	if err := run(t.Context(), &out, server.URL, "holiday", filepath.Join(dir, "none.png"), dst); err == nil {
		t.Error("a file that is not there is uploaded")
	}
}
