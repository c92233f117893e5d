//go:build unix

package server

import "syscall"

// maxOpenFiles returns how many files the process may open. The runtime of Go has
// raised the limit as far as it may.
func maxOpenFiles() (n uint64, ok bool) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err == nil
}
