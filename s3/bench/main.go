// Bench measures what imaged-s3 costs in front of an S3 object store. It moves
// the same images through imaged-s3 and directly, on a cluster of cluster.sh.
//
//	./cluster.sh go run ./bench
//
// Direct requests use the AWS SDK as imaged-s3 does, with signatures and
// checksums. The first ratio is to one request, GET or PUT; imaged-s3 should
// reach 0.7 of it. The second ratio, for PUT, is to HEAD and PUT, which are the
// requests that imaged-s3 sends. It tells the cost of imaged-s3 from that of the
// HEAD, which it needs to answer 201 or 200. All share one machine, so at 16
// connections the ratios compare CPU time.
package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxConnections = 16

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rounds := flag.Int("rounds", 5, "`number` of measurements, of which medians are printed")
	duration := flag.Duration("duration", time.Second, "`time` of one measurement")
	only := flag.String("run", ".", "regular `expression` of the work to measure, such as 'PUT, new, 1 MiB, 16'")
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
	prefix := "bench-" + crand.Text() + "/" // so that new images are new in every run
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
		plain:     &direct{client, bucket, prefix + "plain-", false},
		headFirst: &direct{client, bucket, prefix + "head-", true},
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
	// The ways take turns at being first, so that other load on the machine meets
	// all alike.
	for round := range rounds {
		for _, t := range tasks {
			n := ways
			if t.work == "GET" {
				n = headFirst // all ways except that one: no HEAD goes before a GET
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

	fmt.Println("| work | connections | imaged-s3/s, p50, p99 | MinIO/s, p50, p99 | ratio | to HEAD + PUT |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, t := range tasks {
		fmt.Printf("| %s, %s | %d | %v | %v | %s | %s |\n", t.work, sizeName(t.size), t.connections,
			medians(t.results[viaImaged]), medians(t.results[plain]), t.ratio(plain), t.ratio(headFirst))
	}
	fmt.Printf("\nMedians of %d rounds of %v each, times in ms. Ratios are the median of the rounds, the least and the greatest. Four nodes, imaged-s3 and the load on %d cores, %s.\n",
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

// ratio compares imaged-s3 with another way. It is "" if that was not measured.
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

// ids numbers the images. Every measurement uses images of its own: MinIO keeps
// all versions here, and what it writes with every PUT of an object grows with
// them.
var ids atomic.Int64

// measure sends requests on every connection, one after the other.
func (t *task) measure(ctx context.Context, s store, d time.Duration) (result, error) {
	img := picture(t.size)
	known := make([]string, t.connections) // one each: MinIO locks an object that is replaced
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
				err = fmt.Errorf("got %d bytes, want %d", n, len(img))
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
