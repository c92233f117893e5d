// S3 is imaged with an object store of the S3 kind in place of a directory.
// Credentials and region come from where the AWS SDK looks for them, such as
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
	"github.com/ba692904/imagestore/internal/daemon"
)

const (
	// startTimeout is how long the first look at the bucket may take.
	startTimeout = time.Minute
	// idleConns is how many connections to the engine are kept. The SDK's 10
	// would have a busy server open and close them all the time.
	idleConns = 256
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
	bucket := flags.String("bucket", "", "store the images in this `bucket`")
	prefix := flags.String("prefix", "", "begin the names of all objects with this `prefix` and a slash")
	endpoint := flags.String("endpoint", "", "the `URL` of the object store, if it is not AWS")
	flags.SetOutput(io.Discard) // one line for an error, all of it for -h
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		fmt.Fprintln(stdout, "imaged stores images in S3 and serves them over HTTP.")
		flags.PrintDefaults()
		return nil
	case err != nil:
		return fmt.Errorf("%w (-h lists the flags)", err)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q (-h lists the flags)", flags.Arg(0))
	case *bucket == "":
		return errors.New("-bucket is missing (-h lists the flags)")
	}

	client, err := newClient(ctx, *endpoint)
	if err != nil {
		return err
	}
	fsys := s3fs.New(client, *bucket, *prefix)
	if err := check(ctx, fsys); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	images := imagestore.NewHandler(imagestore.New(fsys, nil), nil)
	fmt.Fprintf(stdout, "imaged: listening on http://%s, storing in s3://%s\n", ln.Addr(), path.Join(*bucket, *prefix))
	return daemon.Serve(ctx, ln, images, nil, imagestore.DefaultTimeout)
}

func newClient(ctx context.Context, endpoint string) (*s3.Client, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConns, idleConns
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(transport))
	if err != nil {
		return nil, err
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
			o.UsePathStyle = true // few have a host name for every bucket
		}
	}), nil
}

func check(ctx context.Context, fsys *s3fs.Fs) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return fsys.Check(ctx)
}
