package server

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
)

const (
	// defaultConnections is for a process that may open 12,352 files or more.
	defaultConnections = 4096
	// enoughConnections is the number below which a lowered limit is logged.
	enoughConnections = 1024
	// filesPerConnection is the most files that one connection holds open. One is the
	// connection itself. The others are an image, a staged file and a connection to
	// an object store, or two directories that are synced at the same time.
	filesPerConnection = 3
	// reservedFiles is for all else: the listener, a sweep, files of the runtime.
	reservedFiles = 64
)

// limitConnections returns how many connections to accept, when want are wanted. If
// the process may open too few files for that, it returns less. It logs that if few
// are left.
func limitConnections(want int, logger *slog.Logger) int {
	files, ok := maxOpenFiles()
	if !ok {
		return want
	}
	most := uint64(1)
	if files > reservedFiles+filesPerConnection {
		most = (files - reservedFiles) / filesPerConnection
	}
	if uint64(want) <= most {
		return want
	}
	n := int(most)
	if n < enoughConnections {
		logger.Warn("imagestore: the limit on open files allows fewer connections", "connections", n, "wanted", want, "files", files)
	}
	return n
}

// A limitListener has a slot for each connection. Accept takes one, and waits while
// there is none. The slot is given back by connState, because a wrapper of the
// connection would hide what a [net.TCPConn] can do.
type limitListener struct {
	net.Listener
	slots  chan struct{} // holds a value for every slot that is taken
	closed chan struct{}
	once   sync.Once
}

func newLimitListener(ln net.Listener, connections int) *limitListener {
	return &limitListener{Listener: ln, slots: make(chan struct{}, connections), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
	}
	return c, err
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// connState learns what becomes of a connection.
func (l *limitListener) connState(state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		<-l.slots
	}
}
