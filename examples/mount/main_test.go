package main

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/spf13/afero"
)

// bearer adds the token to every request, as any http.Client can be made to.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

func TestService(t *testing.T) {
	server := httptest.NewServer(newService(imagestore.New(afero.NewMemMapFs(), nil), "sesame"))
	defer server.Close()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}

	stranger, err := client.New(server.URL+"/api/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Put(t.Context(), "a", bytes.NewReader(b.Bytes())); err == nil {
		t.Error("a stranger can put images")
	}
	owner, err := client.New(server.URL+"/api/v1", &http.Client{Transport: bearer("sesame")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Put(t.Context(), "a", bytes.NewReader(b.Bytes())); err != nil {
		t.Errorf("the owner cannot put images: %v", err)
	}
	if _, err := stranger.Stat(t.Context(), "a"); err != nil {
		t.Errorf("a stranger cannot see images: %v", err)
	}
	if err := stranger.Delete(t.Context(), "a"); err == nil {
		t.Error("a stranger can delete images")
	}
	if err := owner.Delete(t.Context(), "a"); err != nil {
		t.Errorf("the owner cannot delete images: %v", err)
	}
	if _, err := stranger.Stat(t.Context(), "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Errorf("the image is not gone: %v", err)
	}
	resp, err := http.Get(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("the rest of the service answers %s", resp.Status)
	}
}
