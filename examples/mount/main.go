// Mount is a service that has an image store under a path of its own, behind
// its own authentication.
package main

import (
	"crypto/subtle"
	"log"
	"net/http"
	"os"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

func main() {
	token := os.Getenv("TOKEN")
	if token == "" {
		log.Fatal("set TOKEN to the secret that callers must send as Authorization: Bearer ...")
	}
	store := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), "images"), nil)
	log.Fatal(http.ListenAndServe("127.0.0.1:8081", newService(store, token)))
}

// newService returns the handler of the whole service. Everybody may read
// images; who wants to change them must know the token.
func newService(store *imagestore.Store, token string) http.Handler {
	images := http.StripPrefix("/api/v1", imagestore.NewHandler(store, nil))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("the rest of the service\n"))
	})
	mux.Handle("/api/v1/images", authenticate(token, images))
	mux.Handle("/api/v1/images/", authenticate(token, images))
	return mux
}

func authenticate(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
