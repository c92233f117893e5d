package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// A store is a way to the images.
type store interface {
	get(ctx context.Context, id string) (int64, error)
	put(ctx context.Context, id string, b []byte) error
}

type imaged struct {
	url    string
	client *http.Client
}

func (s *imaged) get(ctx context.Context, id string) (int64, error) {
	return s.do(ctx, http.MethodGet, id, nil)
}

func (s *imaged) put(ctx context.Context, id string, b []byte) error {
	_, err := s.do(ctx, http.MethodPut, id, b)
	return err
}

func (s *imaged) do(ctx context.Context, method, id string, b []byte) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+"/images/"+id, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("imaged-s3 answers %s", resp.Status)
	}
	return n, err
}

type direct struct {
	client         *s3.Client
	bucket, prefix string
	headFirst      bool // sends HEAD before PUT, as imaged-s3 does
}

func newClient(ctx context.Context, endpoint string) (*s3.Client, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = maxConnections
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(transport))
	if err != nil {
		return nil, err
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.BaseEndpoint, o.UsePathStyle = &endpoint, true
	}), nil
}

func (s *direct) get(ctx context.Context, id string) (int64, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + id)})
	if err != nil {
		return 0, err
	}
	defer out.Body.Close()
	return io.Copy(io.Discard, out.Body)
}

func (s *direct) put(ctx context.Context, id string, b []byte) error {
	key := aws.String(s.prefix + id)
	if s.headFirst {
		_, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: key})
		if _, missing := errors.AsType[*types.NotFound](err); err != nil && !missing {
			return err
		}
	}
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: key, Body: bytes.NewReader(b)})
	return err
}

// startImaged builds imaged-s3 and starts it.
func startImaged(ctx context.Context, endpoint, bucket, prefix string) (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "imagestore-bench-")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	program := filepath.Join(dir, "imaged-s3")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/ba692904/imagestore/s3/cmd/imaged-s3").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, program, "-addr", "127.0.0.1:0", "-endpoint", endpoint, "-bucket", bucket, "-prefix", prefix)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	m := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(line)
	if m == "" {
		stop()
		return "", nil, cmp.Or(err, fmt.Errorf("imaged-s3 prints %q, want its address", line))
	}
	return m, stop, nil
}
