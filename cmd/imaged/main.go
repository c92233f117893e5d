// Imaged serves an image store in a directory over HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/daemon"
	"github.com/spf13/afero"
)

const (
	// What crashes have left is removed at the start and then every day. No
	// upload stands still for an hour.
	sweepEvery = 24 * time.Hour
	sweepAge   = time.Hour
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "imaged:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("imaged", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on this `host:port`")
	dir := flags.String("dir", "images", "store the images in this `directory`")
	maxBytes := flags.Int64("max-bytes", imagestore.DefaultMaxBytes, "accept images of up to this many `bytes`")
	hosts := flags.String("hosts", "", "accept requests for these `names`, separated by commas, besides those for\nlocalhost; checked when listening on loopback or when given")
	timeout := flags.Duration("timeout", imagestore.DefaultTimeout, "give up on clients that take longer than this `time` for 64 KiB")
	deep := flags.Bool("deep", false, "inflate every image too when it is proven: finds more, costs more")
	verify := flags.Bool("verify", false, "serve nothing: prove all images that are stored, name those that are\nbroken, and fail if there are any")
	flags.SetOutput(io.Discard) // one line for an error, all of it for -h
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		fmt.Fprintln(stdout, "imaged stores images and serves them over HTTP.")
		flags.PrintDefaults()
		return nil
	case err != nil:
		return fmt.Errorf("%w (imaged -h lists the flags)", err)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q (imaged -h lists the flags)", flags.Arg(0))
	case *maxBytes <= 0:
		return fmt.Errorf("-max-bytes is %d, not a positive number", *maxBytes)
	case *timeout <= 0:
		return fmt.Errorf("-timeout is %v, not a positive time", *timeout)
	}

	opts := &imagestore.Options{MaxBytes: *maxBytes, Deep: *deep}
	if *verify {
		if _, err := os.Stat(*dir); err != nil {
			return err
		}
		return verifyAll(ctx, imagestore.New(afero.NewReadOnlyFs(afero.NewBasePathFs(afero.NewOsFs(), *dir)), opts), stdout)
	}
	root, err := writableDir(*dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	store := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), root), opts)
	images := imagestore.NewHandler(store, &imagestore.HandlerOptions{Timeout: *timeout})
	names := strings.FieldsFunc(*hosts, func(r rune) bool { return r == ',' || r == ' ' })
	fmt.Fprintf(stdout, "imaged: listening on http://%s, storing in %s\n", ln.Addr(), root)

	go sweep(ctx, store)
	return daemon.Serve(ctx, ln, images, names, *timeout)
}

// sweep keeps the store tidy until ctx is done.
func sweep(ctx context.Context, store *imagestore.Store) {
	for {
		removed, err := store.Sweep(ctx, sweepAge)
		if err != nil && ctx.Err() == nil {
			slog.Error("imaged: removing what crashes have left", "err", err)
		} else if removed > 0 {
			slog.Info("imaged: removed what crashes have left", "files and directories", removed)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
	}
}

// writableDir makes sure that there is such a directory and that it can be
// written, rather than have the first upload find out.
func writableDir(dir string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	_, statErr := os.Stat(root)
	if err := os.MkdirAll(root, 0o777); err != nil {
		return "", err
	}
	if statErr != nil {
		// The store syncs its own directory, but that it exists is written in
		// the one above. A best effort: not every parent may be opened.
		for parent := root; parent != filepath.Dir(parent); {
			parent = filepath.Dir(parent)
			if d, err := os.Open(parent); err == nil {
				_ = d.Sync()
				_ = d.Close()
			}
		}
	}
	f, err := os.CreateTemp(root, ".check-")
	if errors.Is(err, syscall.ENOSPC) {
		return root, nil // images can still be read, and deleted to make room
	}
	if err != nil {
		return "", err
	}
	return root, errors.Join(f.Close(), os.Remove(f.Name()))
}

// verifyAll proves all images and prints a line for each that is broken. On a
// terminal it shows how far it is.
func verifyAll(ctx context.Context, store *imagestore.Store, stdout io.Writer) error {
	progress := func(string, ...any) {}
	if fi, err := os.Stderr.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
		const clearLine = "\r\x1b[K"
		progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, clearLine+format, args...) }
	}
	total, broken := 0, 0
	var shown time.Time
	for info, err := range store.All(ctx) {
		if err == nil {
			err = store.Verify(ctx, info.ID)
		}
		switch {
		case errors.Is(err, imagestore.ErrNotFound):
			continue // deleted meanwhile
		case err != nil && (info.ID == "" || ctx.Err() != nil):
			return err
		case err != nil:
			broken++
			progress("")
			fmt.Fprintf(stdout, "%s: %v\n", info.ID, errors.Unwrap(err))
		}
		total++
		if time.Since(shown) > time.Second/10 {
			shown = time.Now()
			progress("%d images, %d broken", total, broken)
		}
	}
	progress("")
	if broken > 0 {
		return fmt.Errorf("%d of %d images are broken", broken, total)
	}
	fmt.Fprintf(stdout, "imaged: all %d images are whole\n", total)
	return nil
}
