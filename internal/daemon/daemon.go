// Package daemon is what all servers of images have in common.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ba692904/imagestore/internal/guard"
)

// shutdownTimeout is how long requests under way may take once a server is told
// to stop.
const shutdownTimeout = 30 * time.Second

// Serve serves images, and /healthz, at ln until ctx is done. Requests must be
// for one of hosts or for this machine if any are given or ln is on loopback.
// timeout is that of the images' handler, which renews it for uploads and
// downloads.
func Serve(ctx context.Context, ln net.Listener, images http.Handler, hosts []string, timeout time.Duration) error {
	// Not a ServeMux, which would answer ids such as ".." with a redirect.
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			fmt.Fprintln(w, "ok")
			return
		}
		images.ServeHTTP(w, r)
	})
	checkHost := len(hosts) > 0 || ln.Addr().(*net.TCPAddr).IP.IsLoopback()
	server := &http.Server{
		Handler:           guard.New(handler, checkHost, hosts),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       timeout,
		WriteTimeout:      timeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(joiner{ln}) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after %v: %w", shutdownTimeout, err), server.Close())
	}
	return nil
}
