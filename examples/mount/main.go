// Mount is a service with an image store under a path of its own. Reading is public. A
// change needs a token.
//
//	TOKEN=secret go run ./examples/mount
//	curl -H 'Authorization: Bearer secret' -T photo.png http://127.0.0.1:8081/api/v1/images/photo
package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ba692904/imagestore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	token := os.Getenv("TOKEN")
	if token == "" {
		log.Fatal("TOKEN is not set: set it to the secret for changes")
	}
	store, err := imagestore.OpenDir("images", nil)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:8081")
	if err != nil {
		log.Fatal(err)
	}
	go sweep(ctx, store)
	if err := serve(ctx, ln, newService(store, token)); err != nil {
		log.Fatal(err)
	}
}

// newService returns the handler of the whole service.
func newService(store *imagestore.Store, token string) http.Handler {
	images := authenticate(token, http.StripPrefix("/api/v1", imagestore.NewHandler(store, nil)))
	mux := http.NewServeMux()
	mux.Handle("/api/v1/images", images)
	mux.Handle("/api/v1/images/", images)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("the rest of the service\n"))
	})
	return mux
}

// authenticate refuses a change without the token.
func authenticate(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "a change needs the token: send Authorization: Bearer TOKEN", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// serve serves h until ctx is done, and then waits for the requests under way. The
// handler of images renews the two timeouts as long as a client makes progress.
func serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(deadline)
	})
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// sweep removes leftovers of crashes from the store, at once and then daily. No upload
// stalls for two hours, because the handler ends it before.
func sweep(ctx context.Context, store *imagestore.Store) {
	for {
		if _, err := store.Sweep(ctx, 2*time.Hour); err != nil && ctx.Err() == nil {
			log.Print(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(24 * time.Hour):
		}
	}
}
