package imagestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

func pixel() *bytes.Buffer {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		log.Fatal(err)
	}
	return &b
}

func ExampleStore() {
	ctx := context.Background()
	// On disk: afero.NewBasePathFs(afero.NewOsFs(), "images")
	store := imagestore.New(afero.NewMemMapFs(), nil)

	info, err := store.Put(ctx, "TestPost", pixel())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored", info.ID)

	img, err := store.Get(ctx, "TestPost")
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	_, format, err := image.Decode(img)
	fmt.Println(format, err)

	fmt.Println(store.Delete(ctx, "TestPost"))
	_, err = store.Stat(ctx, "TestPost")
	fmt.Println(errors.Is(err, imagestore.ErrNotFound))
	// Output:
	// stored TestPost
	// png <nil>
	// <nil>
	// true
}

// Put refuses invalid images and other types. The error says what is wrong.
func ExampleStore_Put_broken() {
	store := imagestore.New(afero.NewMemMapFs(), nil)
	half := pixel().Bytes()[:30]
	_, err := store.Put(context.Background(), "TestPost", bytes.NewReader(half))
	fmt.Println(errors.Is(err, imagestore.ErrInvalidImage))
	_, err = store.Put(context.Background(), "TestPost", strings.NewReader("<html>"))
	fmt.Println(errors.Is(err, imagestore.ErrUnsupportedType))
	// Output:
	// true
	// true
}

// IfMatch keeps an editor from replacing a version that it has not seen.
func ExampleIfMatch() {
	ctx := context.Background()
	store := imagestore.New(afero.NewMemMapFs(), nil)
	first, err := store.Put(ctx, "logo", pixel(), imagestore.IfAbsent())
	if err != nil {
		log.Fatal(err)
	}
	_, err = store.Put(ctx, "logo", pixel(), imagestore.IfMatch(first.ETag))
	fmt.Println(err)
	_, err = store.Put(ctx, "logo", pixel(), imagestore.IfMatch(first.ETag))
	fmt.Println(errors.Is(err, imagestore.ErrPreconditionFailed))
	// Output:
	// <nil>
	// true
}

func ExampleStore_List() {
	ctx := context.Background()
	store := imagestore.New(afero.NewMemMapFs(), nil)
	for _, id := range []string{"b", "c", "a"} {
		if _, err := store.Put(ctx, id, pixel()); err != nil {
			log.Fatal(err)
		}
	}
	for info, err := range store.List(ctx, imagestore.ListOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.ID)
	}
	// Output:
	// a
	// b
	// c
}

// The handler can be mounted under any path.
func ExampleNewHandler() {
	store := imagestore.New(afero.NewMemMapFs(), nil)
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", imagestore.NewHandler(store, nil)))
	server := httptest.NewServer(mux)
	defer server.Close()

	resp, err := http.Post(server.URL+"/api/images/TestPost", "image/png", pixel())
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Location"))

	resp, err = http.Get(server.URL + "/api/images/TestPost")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	_, err = png.Decode(resp.Body)
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"), err)
	// Output:
	// 201 Created /api/images/TestPost
	// 200 OK image/png <nil>
}
