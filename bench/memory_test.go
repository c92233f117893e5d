package main

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// BenchmarkMemory starts an imaged for each measurement and reports its peak memory,
// which should hardly depend on the size of images.
func BenchmarkMemory(b *testing.B) {
	imaged, err := buildImaged(ctx, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	of := func(size int) func() []byte { return func() []byte { return noise(size) } }
	type measurement struct {
		name    string
		image   func() []byte
		uploads int // at once
		times   int
	}
	tests := []measurement{
		{"1 MiB", of(1 << 20), 1, 100},
		{"1 GiB", of(1 << 30), 1, 1},
		{"64 at once of 64 MiB", of(64<<20 - 1<<10), 64, 1},
	}
	for _, f := range formats {
		tests = append(tests, measurement{"1 GiB of " + f.format, func() []byte {
			image, err := f.image(1 << 30)
			if err != nil {
				b.Fatal(err)
			}
			return image
		}, 1, 1})
	}
	for _, test := range tests {
		b.Run(test.name, func(b *testing.B) {
			image := test.image()
			var up, down int64
			for b.Loop() {
				dir := b.TempDir()
				request := func(s *server) func(n int64) net.Buffers {
					return putRequest(s.addr, peer{layout: imagesAPI}, image)
				}
				run := func(connections int, load func(s *server) func(int64) net.Buffers, status int) int64 {
					s, err := start(ctx, "", []string{imaged.program, "-addr", "127.0.0.1:0", "-dir", dir, "-max-bytes", fmt.Sprint(2 << 30),
						"-formats", "png,jpeg,gif,webp,avif,heic"})
					if err != nil {
						b.Fatal(err)
					}
					defer s.stop()
					for range test.times {
						if _, err := closedLoop(ctx, s.addr, connections, time.Nanosecond, load(s), status, http.StatusOK); err != nil {
							b.Fatal(err)
						}
					}
					return s.peak()
				}
				up = run(test.uploads, request, http.StatusCreated)
				down = run(test.uploads, func(s *server) func(int64) net.Buffers {
					return getRequest(s.addr, "/images/"+putID(1), "")
				}, http.StatusOK)
			}
			b.ReportMetric(float64(up)/(1<<20), "MiB-uploading")
			b.ReportMetric(float64(down)/(1<<20), "MiB-downloading")
		})
	}
}
