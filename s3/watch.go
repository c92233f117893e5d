package s3

import (
	"context"
	"fmt"
	"time"
)

// A watch is the context of one request. It also ends when the service has sent
// and taken nothing for too long.
type watch struct {
	context.Context
	caller context.Context // whose end is not the service's fault
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (b *bucket) watch(ctx context.Context) *watch {
	w := &watch{caller: ctx, limit: b.patience}
	w.Context, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.limit, func() { w.cancel(fmt.Errorf("%w for %v", errStill, w.limit)) })
	return w
}

// endWith ends the watch with ctx too, until detach is called. It reports
// whether ctx has not ended the watch.
func (w *watch) endWith(ctx context.Context) (detach func() bool) {
	w.caller = ctx
	return context.AfterFunc(ctx, func() { w.cancel(ctx.Err()) })
}

// touch starts the time anew.
func (w *watch) touch() { w.timer.Reset(w.limit) }

// pause stops the time until touch.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}
