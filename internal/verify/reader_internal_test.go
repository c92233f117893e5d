package verify

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// An output fails the test if it is written before least bytes are consumed.
type output struct {
	bytes.Buffer
	t     *testing.T
	r     *reader
	least int64
}

func (o *output) Write(b []byte) (int, error) {
	if o.r.offset() < o.least {
		o.t.Errorf("got a Write at offset %d, want none before %d", o.r.offset(), o.least)
	}
	return o.Buffer.Write(b)
}

// A chunked reader returns pieces of random sizes.
type chunked struct {
	rnd *rand.Rand
	r   io.Reader
}

func (c chunked) Read(b []byte) (int, error) {
	return c.r.Read(b[:min(len(b), 1+c.rnd.IntN(1<<c.rnd.IntN(18)))])
}

// TestReaderEditing does random operations and compares with a model that has all of the
// stream and of the output.
func TestReaderEditing(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		in := make([]byte, rnd.IntN(300_000))
		for i := range in {
			in[i] = byte(rnd.Uint32())
		}
		out := &output{t: t}
		r := newReader(out, chunked{rnd, bytes.NewReader(in)})
		out.r = r
		var (
			want, held []byte
			pos        int
			state      = keeping
		)
		// consume is what the model does with n bytes that become b.
		consume := func(b []byte) {
			switch state {
			case keeping:
				want = append(want, b...)
			case holding:
				held = append(held, b...)
			}
			pos += len(b)
		}
		for {
			if r.offset() != int64(pos) {
				t.Fatalf("seed %d: got offset %d, want %d", seed, r.offset(), pos)
			}
			most := 1 + rnd.IntN(1<<rnd.IntN(18))
			if state == holding {
				most = min(most, 20)
			}
			var err error
			switch rnd.IntN(10) {
			case 0, 1, 2:
				var b []byte
				if b, err = r.next(int64(most)); err == nil {
					if !bytes.Equal(b, in[pos:pos+len(b)]) {
						t.Fatalf("seed %d: next: got other bytes at %d", seed, pos)
					}
					n := rnd.IntN(len(b) + 1)
					r.unread(n)
					b = b[:len(b)-n]
					if rnd.IntN(2) == 0 {
						clear(b)
					}
					consume(b)
				}
			case 3:
				b, n := make([]byte, min(most, 50)), 0
				n, err = r.full(b)
				if !bytes.Equal(b[:n], in[pos:pos+n]) {
					t.Fatalf("seed %d: full: got other bytes at %d", seed, pos)
				}
				consume(b[:n])
			case 4:
				n := min(most, len(in)-pos)
				err = r.skip(int64(most))
				consume(in[pos : pos+n])
			case 5:
				b, _ := r.peek(min(most, 16))
				if !bytes.Equal(b, in[pos:min(len(in), pos+min(most, 16))]) {
					t.Fatalf("seed %d: peek: got other bytes at %d", seed, pos)
				}
			case 6:
				r.keep()
				want, held, state = append(want, held...), nil, keeping
			case 7:
				r.drop()
				held, state = nil, dropping
			case 8:
				if state != holding {
					r.hold()
					state = holding
				}
			case 9:
				for range rnd.IntN(4) {
					if state != holding {
						b := bytes.Repeat([]byte{'x'}, rnd.IntN(100))
						if err := r.emit(b); err != nil {
							t.Fatal(err)
						}
						want = append(want, b...)
					}
				}
			}
			if err == errEnd {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		r.keep()
		want = append(want, held...)
		if err := r.flush(); err != nil || pos != len(in) || !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("seed %d: got %v and %d bytes, want %d", seed, err, out.Len(), len(want))
		}
		r.release()
	}
}

// TestReaderEmitsBuffered checks that bytes that are emitted cause no Write.
func TestReaderEmitsBuffered(t *testing.T) {
	for n := 0; n < BufferSize-room; n += 211 {
		out := &output{t: t, least: BufferSize - room}
		r := newReader(out, bytes.NewReader(make([]byte, 2*BufferSize)))
		out.r = r
		skip := func(n int) {
			if err := r.skip(int64(n)); err != nil {
				t.Fatal(err)
			}
		}
		skip(n)
		if err := r.emit(make([]byte, room)); err != nil {
			t.Fatal(err)
		}
		skip(max(BufferSize-room-n, 0))
		if out.Len() > 0 {
			t.Fatalf("%d: got %d bytes, want none", n, out.Len())
		}
		r.release()
	}
}
