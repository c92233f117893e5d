// Bench measures what imaged costs in front of an S3 object store: the same
// images through imaged and straight from the store, on the cluster that
// cluster.sh starts.
//
//	./cluster.sh go run ./bench
//
// Straight means with the AWS SDK as imaged itself has it, signatures and
// checksums included: that is what a program would do that had no imaged.
// Anonymous requests would be cheaper for both sides, but nobody lets strangers
// write to a bucket. The ratio is that to the one plain request, GET or PUT,
// that would do; imaged is to reach 0.7 of it. For PUT, beside it is that to the
// requests that imaged makes, HEAD and PUT, which tells how much of the distance
// is that HEAD, needed to answer 201 or 200, and how much is imaged. All share
// one machine, so at 16 connections the ratios are those of CPU time.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const maxConnections = 16

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rounds := flag.Int("rounds", 5, "measure everything this many `times` and take medians")
	duration := flag.Duration("duration", time.Second, "measure for this long each time")
	only := flag.String("run", ".", "measure only work that matches this `expression`, such as 'PUT, new, 1 MiB, 16'")
	flag.Parse()
	if err := run(ctx, *rounds, *duration, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, duration time.Duration, only string) error {
	matching, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if rounds < 1 || duration <= 0 {
		return errors.New("-rounds and -duration must be positive")
	}
	endpoint, bucket := os.Getenv("S3_ENDPOINT"), os.Getenv("S3_BUCKET")
	if endpoint == "" || bucket == "" {
		return errors.New("there is no cluster: run ./cluster.sh go run ./bench")
	}
	prefix := "bench-" + crand.Text() // so that what is put as new is, after another run too
	url, stop, err := startImaged(ctx, endpoint, bucket, prefix)
	if err != nil {
		return err
	}
	defer stop()
	client, err := newClient(ctx, endpoint)
	if err != nil {
		return err
	}
	stores := [ways]store{
		viaImaged: &imaged{url, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxConnections}}},
		plain:     &direct{client, bucket, prefix + "-plain/", false},
		headFirst: &direct{client, bucket, prefix + "-head/", true},
	}

	var tasks []*task
	for _, work := range []string{"GET", "PUT, new", "PUT, replaced"} {
		for _, size := range []int{64 << 10, 1 << 20} {
			for _, connections := range []int{1, maxConnections} {
				if matching.MatchString(fmt.Sprintf("%s, %s, %d", work, sizeName(size), connections)) {
					tasks = append(tasks, &task{work: work, size: size, connections: connections})
				}
			}
		}
	}
	// Round after round, and in turns which way is first, so that what else the
	// machine does meets all alike.
	for round := range rounds {
		for _, t := range tasks {
			n := ways
			if t.work == "GET" {
				n = headFirst // all ways but that one: imaged asks nothing before a GET
			}
			for i := range n {
				way := (round + i) % n
				r, err := t.measure(ctx, stores[way], duration)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", t.work, sizeName(t.size), err)
				}
				t.results[way] = append(t.results[way], r)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d is done\n", round+1, rounds)
	}

	fmt.Println("| work | connections | imaged/s, p50, p99 | MinIO itself/s, p50, p99 | ratio | to HEAD + PUT |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, t := range tasks {
		fmt.Printf("| %s, %s | %d | %v | %v | %s | %s |\n", t.work, sizeName(t.size), t.connections,
			medians(t.results[viaImaged]), medians(t.results[plain]), t.ratio(plain), t.ratio(headFirst))
	}
	fmt.Printf("\nMedians of %d rounds of %v each, times in ms; a ratio is that of one round, with the least and the greatest. Four nodes, imaged and the load on %d cores, %s.\n",
		rounds, duration, runtime.NumCPU(), runtime.Version())
	return nil
}

// The ways to the images.
const (
	viaImaged = iota
	plain
	headFirst
	ways
)

// A task is one kind of load.
type task struct {
	work        string
	size        int
	connections int
	results     [ways][]result // one for each round
}

// ratio says how imaged compares with another way, "" if that was not measured.
func (t *task) ratio(way int) string {
	var all []float64
	for round, r := range t.results[way] {
		all = append(all, t.results[viaImaged][round].perSecond/r.perSecond)
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(all), slices.Min(all), slices.Max(all))
}

type result struct {
	perSecond float64
	p50, p99  time.Duration
}

func (r result) String() string {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	return fmt.Sprintf("%.0f, %.1f, %.1f", r.perSecond, ms(r.p50), ms(r.p99))
}

// ids makes every image that is put as new a new one, and has each measurement
// begin with others than those before: MinIO keeps all versions here, and what it
// writes anew with every PUT of an object grows with them.
var ids atomic.Int64

// measure has every connection send the next request when the one before is
// answered.
func (t *task) measure(ctx context.Context, s store, d time.Duration) (result, error) {
	img := picture(t.size)
	known := make([]string, t.connections) // one each, as MinIO lets only one at a time replace an object
	for i := range known {
		known[i] = fmt.Sprint("known-", ids.Add(1))
		if err := s.put(ctx, known[i], img); err != nil {
			return result{}, err
		}
	}
	request := func(i int) error {
		switch t.work {
		case "GET":
			n, err := s.get(ctx, known[i])
			if err == nil && n != int64(len(img)) {
				err = fmt.Errorf("%d bytes have come, not %d", n, len(img))
			}
			return err
		case "PUT, new":
			return s.put(ctx, fmt.Sprint("new-", ids.Add(1)), img)
		}
		return s.put(ctx, known[i], img)
	}
	var (
		all   sync.WaitGroup
		took  = make([][]time.Duration, t.connections)
		errs  = make([]error, t.connections)
		start = time.Now()
	)
	for i := range t.connections {
		all.Go(func() {
			for errs[i] == nil && time.Since(start) < d {
				began := time.Now()
				errs[i] = request(i)
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	all.Wait()
	elapsed := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	times := slices.Concat(took...)
	slices.Sort(times)
	return result{float64(len(times)) / elapsed.Seconds(), times[len(times)/2], times[len(times)*99/100]}, nil
}

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
		err = fmt.Errorf("imaged answers %s", resp.Status)
	}
	return n, err
}

type direct struct {
	client         *s3.Client
	bucket, prefix string
	headFirst      bool // to learn whether an image is new, as imaged does
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

// startImaged builds and starts the imaged of the directory above.
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
	program := filepath.Join(dir, "imaged")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/ba692904/imagestore/examples/s3").CombinedOutput(); err != nil {
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
		return "", nil, cmp.Or(err, fmt.Errorf("imaged says %q", line))
	}
	return m, stop, nil
}

// picture returns a PNG of noise of about so many bytes.
func picture(size int) []byte {
	const width = 256
	img := image.NewGray(image.Rect(0, 0, width, size/(width+1)))
	r := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		panic(err) // a Buffer never fails
	}
	return b.Bytes()
}

func medians(results []result) result {
	by := func(of func(result) float64) float64 {
		var all []float64
		for _, r := range results {
			all = append(all, of(r))
		}
		return median(all)
	}
	return result{
		by(func(r result) float64 { return r.perSecond }),
		time.Duration(by(func(r result) float64 { return float64(r.p50) })),
		time.Duration(by(func(r result) float64 { return float64(r.p99) })),
	}
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func sizeName(size int) string {
	if size >= 1<<20 {
		return fmt.Sprintf("%d MiB", size>>20)
	}
	return fmt.Sprintf("%d KiB", size>>10)
}
