// Package server has the parts of imaged. [Serve] serves a store over HTTP
// until it is told to stop. A [Command] adds the flags, the signals and the
// check of all stored images, for a program that brings its own store:
//
//	func main() {
//		server.Command{Name: "imaged-mem", About: "keeps images in memory", Open: open}.Main()
//	}
//
//	func open(_ context.Context, opts *imagestore.Options, _ bool) (*imagestore.Store, string, error) {
//		return imagestore.New(afero.NewMemMapFs(), opts), "memory", nil
//	}
//
// There are no users and no encryption. A public server needs a proxy in front that
// adds both.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ba692904/imagestore"
)

const (
	// shutdownTimeout is how long requests under way may take to finish.
	shutdownTimeout = 30 * time.Second
	sweepInterval   = 24 * time.Hour

	maxHeader = 16 << 10 // bytes of a request's header

	minTimeout   = time.Millisecond
	maxTimeout   = 24 * time.Hour // also keeps multiples of a timeout from overflowing
	timeoutRange = "from 1ms to 24h"
)

// A Config configures [Serve]. The zero value is fit for most.
type Config struct {
	// Hosts are the names of this server, as its clients use them. If there are
	// any, or the listener has a loopback address, requests for other hosts are
	// refused. The names of the loopback interface are always accepted. Ports, case
	// and a trailing dot do not matter. Pages of Hosts may change images.
	Hosts []string
	// Timeout is how long a client may take to send or receive 64 KiB, from a
	// millisecond to 24 hours; see [imagestore.HandlerOptions]. 0 is
	// [imagestore.DefaultTimeout]. Servers of one directory should agree on it:
	// each removes staged files that are older than an hour plus 20 times its
	// own Timeout.
	Timeout time.Duration
	// MaxConnections is how many connections are accepted at once, those without a
	// request included. More wait until others end. 0 is 4096. It is less where the
	// process may not open 3 files for each connection and 64 more.
	MaxConnections int
	// Logger gets the errors of the server. Nil is [slog.Default].
	Logger *slog.Logger
}

// Serve serves the images of a store at ln, which may be any listener, and closes
// it. When ctx is done, Serve accepts no more requests. It returns nil if those
// under way finish within 30 seconds. Nil cfg is the zero Config.
//
// /healthz and /readyz answer whatever the request's host. Everything else goes
// through checks that keep web pages of other sites out. At the start, and then
// daily, Serve removes what interrupted uploads have left in the store.
func Serve(ctx context.Context, ln net.Listener, store *imagestore.Store, cfg *Config) error {
	defer ln.Close()
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if c.Timeout == 0 {
		c.Timeout = imagestore.DefaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := checkTimeout(c.Timeout); err != nil {
		return fmt.Errorf("server: Config.Timeout %w", err)
	}
	hosts, err := parseHosts(c.Hosts)
	if err != nil {
		return fmt.Errorf("server: Config.Hosts %w", err)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = defaultConnections
	}
	if err := checkPositive(c.MaxConnections, defaultConnections); err != nil {
		return fmt.Errorf("server: Config.MaxConnections %w", err)
	}
	c.MaxConnections = limitConnections(c.MaxConnections, c.Logger)

	ctx, cancel := context.WithCancel(ctx)
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	defer cancel()
	sweeping.Go(func() { sweep(ctx, store, sweepAge(c.Timeout), c.Logger) })

	images := imagestore.NewHandler(store, &imagestore.HandlerOptions{Logger: c.Logger, Timeout: c.Timeout})
	// No browser connects to a unix socket, so its clients need no check.
	_, isUnix := ln.Addr().(*net.UnixAddr)
	guarded := &guard{
		images:     images,
		hosts:      hosts,
		checkHost:  len(hosts) > 0 || parseHost(ln.Addr().String()).isLoopback(),
		checkReads: !isUnix,
	}
	return serve(ctx, ln, &health{next: guarded, ctx: ctx, store: store, logger: c.Logger}, c)
}

// serve serves h at ln until ctx is done. c has its defaults filled in.
func serve(ctx context.Context, ln net.Listener, h http.Handler, c Config) error {
	limited := newLimitListener(ln, c.MaxConnections)
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       c.Timeout, // the handler of images renews these two
		WriteTimeout:      c.Timeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader - 4<<10, // net/http reads 4 to 8 KiB more
		ConnState: func(c net.Conn, state http.ConnState) {
			limited.connState(state)
			if h, ok := c.(*holdConn); ok {
				h.header.connState(state)
			}
		},
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(holdListener{limited}) }()
	select {
	case err := <-failed:
		srv.Close()
		return err
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(deadline); err != nil {
		return errors.Join(fmt.Errorf("server: some requests did not finish within %v: %w", shutdownTimeout, err), srv.Close())
	}
	return nil
}

// sweepAge returns how old a staged file must be to be removed. An upload adds to its
// file at least every two timeouts. The handler waits one for 64 KiB, and the store
// buffers as many. A form doubles that. Its parts after the file take up to 16 more.
// The hour is for slow storage.
func sweepAge(timeout time.Duration) time.Duration { return time.Hour + 20*timeout }

// sweep sweeps the store at once and then daily until ctx is done.
func sweep(ctx context.Context, store *imagestore.Store, age time.Duration, logger *slog.Logger) {
	for {
		removed, err := store.Sweep(ctx, age)
		if err != nil && ctx.Err() == nil {
			logger.Error("imagestore: sweep failed", "err", err)
		}
		if removed > 0 {
			logger.Info("imagestore: swept what interrupted uploads have left", "removed", removed)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepInterval):
		}
	}
}

func checkTimeout(d time.Duration) error {
	if d < minTimeout || d > maxTimeout {
		return fmt.Errorf("is %v: it must be %s, such as %v", d, timeoutRange, imagestore.DefaultTimeout)
	}
	return nil
}

func checkPositive[T int | int64](n, example T) error {
	if n < 1 {
		return fmt.Errorf("is %d: it must be at least 1, such as %d", n, example)
	}
	return nil
}
