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

// What is not a whole PNG is refused, and the error says what is wrong with it.
func ExampleStore_Put_broken() {
	store := imagestore.New(afero.NewMemMapFs(), nil)
	half := pixel().Bytes()[:30]
	_, err := store.Put(context.Background(), "TestPost", bytes.NewReader(half))
	fmt.Println(errors.Is(err, imagestore.ErrBroken))
	_, err = store.Put(context.Background(), "TestPost", strings.NewReader("<html>"))
	fmt.Println(errors.Is(err, imagestore.ErrNotPNG))
	// Output:
	// true
	// true
}

// Two editors of one image: the one who read an old version is told so.
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
	fmt.Println(errors.Is(err, imagestore.ErrPrecondition))
	// Output:
	// <nil>
	// true
}

func ExampleStore_All() {
	ctx := context.Background()
	store := imagestore.New(afero.NewMemMapFs(), nil)
	for _, id := range []string{"a", "b", "c"} {
		if _, err := store.Put(ctx, id, pixel()); err != nil {
			log.Fatal(err)
		}
	}
	for info, err := range store.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.ID)
	}
	// Unordered output:
	// a
	// b
	// c
}

// A handler in a service of one's own, under a path of its own.
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
