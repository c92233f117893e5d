// Imaged-s3 serves the images in a bucket of an S3 object store over HTTP. The
// AWS SDK finds credentials and the region, for example in AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY and AWS_REGION.
package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
	"github.com/ba692904/imagestore/server"
)

const (
	// checkTimeout is how long the first look at the bucket may take.
	checkTimeout = time.Minute
	// idleConns is how many connections to the service are kept. With the SDK's
	// 10, a busy server would open and close them all the time.
	idleConns = 256
)

func main() { command().Main() }

func command() server.Command {
	var bucket, prefix, endpoint string
	return server.Command{
		Name:  "imaged-s3",
		About: "keeps images in S3 and serves them over HTTP",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&bucket, "bucket", "", "`name` of the bucket; required")
			flags.StringVar(&prefix, "prefix", "", "`text` before the id in every key, such as photos/; there is nothing in between")
			flags.StringVar(&endpoint, "endpoint", "", "`URL` of the object store, if it is not AWS")
		},
		Open: func(ctx context.Context, opts *imagestore.Options, readOnly bool) (*imagestore.Store, string, error) {
			if bucket == "" {
				return nil, "", errors.New("-bucket is missing: name the bucket that keeps the images")
			}
			client, err := newClient(ctx, endpoint)
			if err != nil {
				return nil, "", err
			}
			d := s3.New(client, bucket, prefix)
			if !readOnly {
				ctx, cancel := context.WithTimeout(ctx, checkTimeout)
				defer cancel()
				err = d.Check(ctx)
			}
			return imagestore.NewWithDriver(d, opts), "s3://" + bucket + "/" + prefix, err
		},
	}
}

func newClient(ctx context.Context, endpoint string) (*awss3.Client, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConns, idleConns
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(transport))
	if err != nil {
		return nil, err
	}
	return awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
			o.UsePathStyle = true // most have no host name for every bucket
		}
	}), nil
}
