// Imaged serves a directory of images over HTTP.
package main

import (
	"context"
	"flag"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/server"
)

func main() {
	var dir string
	server.Command{
		Name:  "imaged",
		About: "keeps images in a directory and serves them over HTTP",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&dir, "dir", "images", "`directory` of the images; created if it is missing")
		},
		Open: func(_ context.Context, opts *imagestore.Options, readOnly bool) (*imagestore.Store, string, error) {
			return server.OpenDir(dir, opts, readOnly)
		},
	}.Main()
}
