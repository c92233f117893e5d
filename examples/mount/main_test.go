package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// bearer is a transport that adds the token to every request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

func newClient(t *testing.T, url string, transport http.RoundTripper) *client.Client {
	t.Helper()
	c, err := client.New(url+"/api/v1", &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestService(t *testing.T) {
	srv := testhttp.Serve(t, newService(imagestore.New(afero.NewMemMapFs(), nil), "sesame"))
	png := testimage.PNG(t, 1, 1)
	stranger, owner := newClient(t, srv.URL, nil), newClient(t, srv.URL, bearer("sesame"))

	if _, err := stranger.Put(t.Context(), "a", bytes.NewReader(png)); err == nil {
		t.Error("got nil from a stranger's Put, want an error")
	}
	if _, err := newClient(t, srv.URL, bearer("guess")).Put(t.Context(), "a", bytes.NewReader(png)); err == nil {
		t.Error("got nil from a Put with a wrong token, want an error")
	}
	if _, err := owner.Put(t.Context(), "a", bytes.NewReader(png)); err != nil {
		t.Errorf("got %v from the owner's Put, want nil", err)
	}
	if _, err := stranger.Stat(t.Context(), "a"); err != nil {
		t.Errorf("got %v from a stranger's Stat, want nil", err)
	}
	for _, err := range stranger.List(t.Context(), imagestore.ListOptions{}) {
		if err != nil {
			t.Errorf("got %v from a stranger's List, want nil", err)
		}
	}
	if err := stranger.Delete(t.Context(), "a"); err == nil {
		t.Error("got nil from a stranger's Delete, want an error")
	}
	if err := owner.Delete(t.Context(), "a"); err != nil {
		t.Errorf("got %v from the owner's Delete, want nil", err)
	}
	if _, err := stranger.Stat(t.Context(), "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Errorf("got %v from Stat after Delete, want %v", err, imagestore.ErrNotFound)
	}
	resp, err := http.Get(srv.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("got status %s from the rest of the service, want 200", resp.Status)
	}
}

// TestStop stops the server during an upload, which must still succeed.
func TestStop(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	service := newService(imagestore.New(afero.NewMemMapFs(), nil), "sesame")
	arrived := make(chan struct{})
	var answered atomic.Bool
	go func() {
		err := serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			service.ServeHTTP(w, r)
			answered.Store(true)
		}))
		if !answered.Load() {
			err = errors.Join(err, errors.New("serve returned before the upload was answered"))
		}
		served <- err
	}()

	body, upload := io.Pipe()
	put := make(chan error, 1)
	go func() {
		_, err := newClient(t, "http://"+ln.Addr().String(), bearer("sesame")).Put(t.Context(), "a", body)
		put <- err
	}()
	<-arrived
	stop()
	for { // until the server accepts no more
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	if _, err := upload.Write(testimage.PNG(t, 100, 1)); err != nil {
		t.Errorf("got %v for the bytes of the upload, want nil", err)
	}
	upload.Close()
	if err := <-put; err != nil {
		t.Errorf("got %v from Put, want nil", err)
	}
	if err := <-served; err != nil {
		t.Errorf("got %v from serve, want nil", err)
	}
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := afero.NewMemMapFs()
		staged := ".staging/" + rand.Text()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		leave := func() {
			old := time.Now().Add(-3 * time.Hour)
			if err := errors.Join(afero.WriteFile(fsys, staged, nil, 0o666), fsys.Chtimes(staged, old, old)); err != nil {
				t.Fatal(err)
			}
		}
		wantGone := func(when string) {
			t.Helper()
			synctest.Wait()
			if _, err := fsys.Stat(staged); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got %v for a staged file %s, want %v", err, when, os.ErrNotExist)
			}
		}
		leave()
		go sweep(ctx, imagestore.New(fsys, nil))
		wantGone("at the start")
		leave()
		time.Sleep(24 * time.Hour)
		wantGone("a day later")
	})
}
