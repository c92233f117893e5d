//go:build !unix

package server

// maxOpenFiles returns false: there is no such limit.
func maxOpenFiles() (n uint64, ok bool) { return 0, false }
