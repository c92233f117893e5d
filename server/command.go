package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ba692904/imagestore"
)

// A Command is the command line of a server. Every Command has the flags -addr,
// -formats, -hosts, -max-animation-pixels, -max-bytes, -max-connections, -max-pixels,
// -strip, -timeout, -verify and -verify-pixels.
type Command struct {
	// Name is the name of the program, such as "imaged". It begins the messages.
	Name string
	// About says what the program does, such as "keeps images in memory". It
	// follows the name in the first line of -h.
	About string
	// Flags adds flags of the program's own. It may be nil.
	Flags func(*flag.FlagSet)
	// Open opens the store once the flags are parsed. For -verify the store is
	// only read, and must not be created. where is the place of the images, for
	// the line that is printed at the start.
	Open func(ctx context.Context, opts *imagestore.Options, readOnly bool) (store *imagestore.Store, where string, err error)
}

// Main runs the command with the arguments of the process until an interrupt or
// SIGTERM. A second signal kills the process. A reader of its output that goes away
// does not. If the command fails, Main prints one line on the standard error and
// exits with status 1.
func (c Command) Main() {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := c.Run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		os.Exit(1)
	}
}

// Run runs the command with these arguments until ctx is done. On stdout it prints
// the address of the server, or the findings of -verify.
func (c Command) Run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "`host:port` to listen on; without a host, all interfaces")
	hosts := flags.String("hosts", "", "`names` of this server, separated by commas. If there are any, or if -addr is\non loopback, requests for other hosts are refused, except those for localhost")
	formats := flags.String("formats", "png", "`names` of the image formats accepted, separated by commas:\npng, jpeg, gif, webp, avif, heic")
	maxAnimationPixels := flags.Int64("max-animation-pixels", imagestore.DefaultMaxAnimationPixels, "width × height × frames of the largest animation accepted, in `pixels`")
	maxBytes := flags.Int64("max-bytes", imagestore.DefaultMaxBytes, "size of the largest image accepted, in `bytes`")
	maxPixels := flags.Int64("max-pixels", imagestore.DefaultMaxPixels, "width × height of the largest image accepted, in `pixels`")
	maxConnections := flags.Int("max-connections", defaultConnections, "`number` of connections accepted at once; more wait until others end")
	strip := flags.Bool("strip", false, "store images without metadata: no place, camera, texts or thumbnails. The pixels,\nthe colour profile and the orientation stay")
	timeout := flags.Duration("timeout", imagestore.DefaultTimeout, "longest `time` that a client may take for 64 KiB, "+timeoutRange)
	verify := flags.Bool("verify", false, "check all stored images instead of serving them: list those that are invalid or\ncannot be read, and fail if there are any")
	verifyPixels := flags.Bool("verify-pixels", false, "decompress every image that is uploaded or checked: finds more, takes longer")
	if c.Flags != nil {
		c.Flags(flags)
	}
	flags.SetOutput(io.Discard) // an error is one line; only -h prints all flags
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(stdout)
		fmt.Fprintf(stdout, "%s %s.\n", c.Name, c.About)
		flags.PrintDefaults()
		return nil
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		return fmt.Errorf("%w (%s -h lists the flags)", err, c.Name)
	}
	names := strings.FieldsFunc(*hosts, func(r rune) bool { return r == ',' || r == ' ' })
	if *hosts != "" && len(names) == 0 {
		names = []string{""} // which parseHosts refuses; none would turn the check off
	}
	if _, err := parseHosts(names); err != nil {
		return fmt.Errorf("-hosts %w", err)
	}
	if err := checkTimeout(*timeout); err != nil {
		return fmt.Errorf("-timeout %w", err)
	}
	if err := checkPositive(*maxBytes, imagestore.DefaultMaxBytes); err != nil {
		return fmt.Errorf("-max-bytes %w", err)
	}
	if err := checkPositive(*maxPixels, imagestore.DefaultMaxPixels); err != nil {
		return fmt.Errorf("-max-pixels %w", err)
	}
	if err := checkPositive(*maxAnimationPixels, imagestore.DefaultMaxAnimationPixels); err != nil {
		return fmt.Errorf("-max-animation-pixels %w", err)
	}
	taken, err := imagestore.ParseFormats(*formats)
	if err != nil {
		return fmt.Errorf("-formats is %q: %w", *formats, err)
	}
	if err := checkPositive(*maxConnections, defaultConnections); err != nil {
		return fmt.Errorf("-max-connections %w", err)
	}
	if _, _, err := net.SplitHostPort(*addr); err != nil {
		return fmt.Errorf("-addr is %q: it must be host:port, such as 127.0.0.1:8080", *addr)
	}

	store, where, err := c.Open(ctx, &imagestore.Options{
		Formats:            taken,
		MaxBytes:           *maxBytes,
		MaxPixels:          *maxPixels,
		MaxAnimationPixels: *maxAnimationPixels,
		StripMetadata:      *strip,
		VerifyPixels:       *verifyPixels,
	}, *verify)
	if err != nil {
		return err
	}
	if *verify {
		total, err := verifyAll(ctx, store, stdout, terminal(os.Stderr))
		if err == nil {
			_, err = fmt.Fprintf(stdout, "%s: all %d images are valid\n", c.Name, total)
		}
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return fmt.Errorf("-addr is %q: %w", *addr, err)
	}
	fmt.Fprintf(stdout, "%s: listening on http://%s, storing in %s\n", c.Name, ln.Addr(), where)
	return Serve(ctx, ln, store, &Config{Hosts: names, Timeout: *timeout, MaxConnections: *maxConnections})
}

// terminal returns f if it is a terminal, else nil.
func terminal(f *os.File) io.Writer {
	if fi, err := f.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}
