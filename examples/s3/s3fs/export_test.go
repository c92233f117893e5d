package s3fs

import "time"

var ErrChanged = errChanged

// SetPatience has f give up an engine that keeps still for so long.
func (f *Fs) SetPatience(d time.Duration) { f.patience = d }
