// Progress uploads a PNG file to an image store, downloads it into another file, and
// shows its progress:
//
//	go run ./examples/progress http://127.0.0.1:8080 holiday holiday.png copy.png
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/ba692904/imagestore/client"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: progress URL ID UPLOAD.png DOWNLOAD.png")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout, os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, url, id, upload, download string) (err error) {
	c, err := client.New(url, nil)
	if err != nil {
		return err
	}

	src, err := os.Open(upload)
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	up := &progress{file: src, out: out, what: "upload", total: fi.Size()}
	stored, err := c.Put(ctx, id, up)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "stored %s: %d bytes, version %s\n", stored.ID, stored.Size, stored.ETag)

	img, err := c.Get(ctx, id)
	if err != nil {
		return err
	}
	defer img.Close()
	dst, err := os.Create(download)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, &progress{file: img, out: out, what: "download", total: img.Size})
	if closeErr := dst.Close(); err == nil {
		err = closeErr
	}
	return err
}

// A progress shows how much of a file has been read. It can seek, so that the client
// can declare the length.
type progress struct {
	file        io.ReadSeeker
	out         io.Writer
	what        string
	done, total int64
	percent     int64
}

func (p *progress) Seek(offset int64, whence int) (int64, error) { return p.file.Seek(offset, whence) }

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	p.done += int64(n)
	if percent := 100 * p.done / max(p.total, 1); percent != p.percent {
		p.percent = percent
		fmt.Fprintf(p.out, "\r%s %3d %%", p.what, percent)
		if percent == 100 {
			fmt.Fprintln(p.out)
		}
	}
	return n, err
}
