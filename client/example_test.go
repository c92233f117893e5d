package client_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"net/http/httptest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/spf13/afero"
)

func Example() {
	// A server for this example. The command imaged is a server that is ready to run.
	store := imagestore.New(afero.NewMemMapFs(), nil)
	server := httptest.NewServer(imagestore.NewHandler(store, nil))
	defer server.Close()

	ctx := context.Background()
	c, err := client.New(server.URL, nil)
	if err != nil {
		log.Fatal(err)
	}

	// Put streams, so the encoded image need not fit into memory.
	r, w := io.Pipe()
	go func() { w.CloseWithError(png.Encode(w, image.NewGray(image.Rect(0, 0, 640, 480)))) }()
	info, err := c.Put(ctx, "TestPost", r, imagestore.IfAbsent())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored", info.ID)

	img, err := c.Get(ctx, "TestPost")
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	config, err := png.DecodeConfig(img)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Width, "x", config.Height)

	// The errors are those of the Store.
	_, err = c.Get(ctx, "nothing")
	fmt.Println(errors.Is(err, imagestore.ErrNotFound))
	// Output:
	// stored TestPost
	// 640 x 480
	// true
}
