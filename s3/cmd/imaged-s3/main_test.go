package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "-bucket is missing"},
		{[]string{"-bucket", "b", "more"}, `unexpected argument "more"`},
		{[]string{"-dir", "images"}, "flag provided but not defined: -dir"},
	} {
		if err := command().Run(t.Context(), test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error %v, want %s", test.args, err, test.want)
		}
	}
	var help strings.Builder
	if err := command().Run(t.Context(), []string{"-h"}, &help); err != nil || !strings.Contains(help.String(), "-endpoint URL") {
		t.Errorf("-h: got %v\n%s", err, &help)
	}
}

func TestRun(t *testing.T) {
	endpoint, bucket := os.Getenv("S3_ENDPOINT"), os.Getenv("S3_BUCKET")
	if endpoint == "" {
		t.Skip("S3_ENDPOINT is not set; run ./cluster.sh go test ./...")
	}
	prefix := "test-" + rand.Text() + "/"
	args := []string{"-addr", "127.0.0.1:0", "-endpoint", endpoint, "-prefix", prefix, "-bucket"}
	for _, mode := range [][]string{{}, {"-verify"}} {
		missing := append(append(mode, args...), "missing-"+bucket)
		if err := command().Run(t.Context(), missing, io.Discard); err == nil || !strings.Contains(err.Error(), "NoSuchBucket") {
			t.Errorf("%q where the bucket is missing: got error %v", mode, err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := command().Run(ctx, append(args, bucket), w)
		w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, place, _ := strings.Cut(strings.TrimPrefix(line, "imaged-s3: listening on "), ", storing in ")
	if want := "s3://" + bucket + "/" + prefix + "\n"; place != want {
		t.Errorf("got place %q, want %q", place, want)
	}
	for path, want := range map[string]int{"/healthz": 200, "/images": 200, "/images/a": 404, "/nothing": 404} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s: got status %d, want %d", path, resp.StatusCode, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
