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
		if err := run(t.Context(), test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, not %s", test.args, err, test.want)
		}
	}
	var help strings.Builder
	if err := run(t.Context(), []string{"-h"}, &help); err != nil || !strings.Contains(help.String(), "-endpoint URL") {
		t.Errorf("-h: %v\n%s", err, &help)
	}
}

func TestRun(t *testing.T) {
	endpoint := os.Getenv("S3_ENDPOINT")
	if endpoint == "" {
		t.Skip("S3_ENDPOINT is not set; run ./cluster.sh go test ./...")
	}
	args := []string{"-addr", "127.0.0.1:0", "-endpoint", endpoint, "-prefix", "test-" + rand.Text(), "-bucket"}
	if err := run(t.Context(), append(args, "missing-"+os.Getenv("S3_BUCKET")), io.Discard); err == nil || !strings.Contains(err.Error(), "NoSuchBucket") {
		t.Errorf("where the bucket is missing: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append(args, os.Getenv("S3_BUCKET")), w)
		w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, storing, _ := strings.Cut(strings.TrimPrefix(line, "imaged: listening on "), ", storing in ")
	if want := "s3://" + os.Getenv("S3_BUCKET") + "/" + args[5] + "\n"; storing != want {
		t.Errorf("it says %q, not %q", storing, want)
	}
	for path, want := range map[string]int{"/healthz": 200, "/images": 200, "/images/a": 404, "/": 404} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s answers %s", path, resp.Status)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
