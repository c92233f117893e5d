// Package crashfs is a filesystem in memory that forgets, at a power cut, all
// that it need not remember:
//
//   - what is written to a file, its size and its modification time are durable
//     once the file is synced;
//   - that a name has come, gone or got another meaning is durable once its
//     directory is synced, each name by itself: a rename is two changes.
//
// Disks in use are kinder. Until the cut it behaves as a local filesystem does
// below package os on Linux, except that it knows neither permissions nor links.
package crashfs

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/afero"
)

// Fs is a filesystem that can lose power. It may be used concurrently.
type Fs struct {
	mu    sync.Mutex
	root  *node
	after func(op string)
}

// A node is a file or a directory, whatever its names are.
type node struct {
	meta   meta
	synced meta // what is durable of meta

	// Of a file:
	data    []byte
	durable []byte // data as of the last Sync; never written to
	dirty   bool   // data was changed since then
	intact  int    // so many bytes at its start were not

	// Of a directory, for each name, what it meant at the last Sync, what it
	// has meant since, and last, what it means now. Nil is nothing.
	names   map[string][]*node
	removed bool
}

type meta struct {
	mode os.FileMode
	time time.Time
}

func newNode(m meta) *node { return &node{meta: m, synced: m, names: map[string][]*node{}} }

// now is without the monotonic clock, which no disk knows.
func now() time.Time { return time.Now().Round(0) }

func (n *node) isDir() bool { return n.meta.mode.IsDir() }

func (n *node) child(base string) *node {
	if was := n.names[base]; len(was) > 0 {
		return was[len(was)-1]
	}
	return nil
}

func (n *node) list() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(n.names)), func(base string) bool { return n.child(base) == nil })
}

// contains reports whether other is n or below it.
func (n *node) contains(other *node) bool {
	return n == other || slices.ContainsFunc(n.list(), func(base string) bool { return n.child(base).contains(other) })
}

func (n *node) sync() {
	n.synced, n.durable, n.dirty = n.meta, slices.Clone(n.data), false
	for base := range n.names {
		if child := n.child(base); child != nil {
			n.names[base] = []*node{child}
		} else {
			delete(n.names, base)
		}
	}
}

// resize makes the data that long. What is new is zero, also where it takes the
// room of what was cut off before.
func (n *node) resize(size int64) {
	n.touch(size)
	n.data = append(n.data[:min(size, int64(len(n.data)))], make([]byte, max(0, size-int64(len(n.data))))...)
}

// touch notes that the data is about to change from off on.
func (n *node) touch(off int64) {
	if !n.dirty {
		n.dirty, n.intact = true, len(n.data)
	}
	n.intact = int(min(off, int64(n.intact), int64(len(n.data))))
	n.meta.time = now()
}

// A place is where a path leads.
type place struct {
	dir  *node // nil for the root
	base string
	node *node // nil if there is nothing
}

// set makes the name mean n.
func (at place) set(n *node) {
	was := at.dir.names[at.base]
	if was == nil {
		was = []*node{nil}
	}
	at.dir.names[at.base] = append(was, n)
	at.dir.meta.time = now()
}

func (at place) remove() {
	for _, base := range at.node.list() {
		place{at.node, base, at.node.child(base)}.remove()
	}
	at.set(nil)
	at.node.removed = true
}

func clean(name string) string { return path.Clean("/" + filepath.ToSlash(name)) }

// New returns a filesystem that holds nothing but a root.
func New() *Fs { return &Fs{root: newNode(meta{os.ModeDir | 0o755, now()})} }

// After makes the filesystem call fn after every operation that may have
// changed something or made it durable, with the operation and its paths, such
// as "rename a b" or "sync a". Operations that fail change nothing and are not
// told. No lock is held, so that fn may call Crash. Nil tells nobody.
func (f *Fs) After(fn func(op string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = fn
}

func (f *Fs) tell(op string, names ...string) {
	f.mu.Lock()
	after := f.after
	f.mu.Unlock()
	if after != nil && !slices.Contains([]string{"open", "read", "readdirent", "seek", "stat"}, op) {
		after(op + " " + strings.Join(names, " "))
	}
}

// find fails if the directory of name does not exist.
func (f *Fs) find(name string) (place, error) {
	at := place{node: f.root}
	for base := range strings.SplitSeq(clean(name), "/") {
		switch {
		case base == "":
			continue
		case at.node == nil:
			return place{}, syscall.ENOENT
		case !at.node.isDir():
			return place{}, syscall.ENOTDIR
		}
		at = place{at.node, base, at.node.child(base)}
	}
	return at, nil
}

// do runs an operation on what name leads to, if only to its directory.
func (f *Fs) do(op, name string, what func(at place) error) error {
	f.mu.Lock()
	at, err := f.find(name)
	if err == nil {
		err = what(at)
	}
	f.mu.Unlock()
	if err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	f.tell(op, name)
	return nil
}

// existing is do for what must exist.
func (f *Fs) existing(op, name string, what func(n *node)) error {
	return f.do(op, name, func(at place) error {
		if at.node == nil {
			return syscall.ENOENT
		}
		what(at.node)
		return nil
	})
}

func rename(from, to place) error {
	switch {
	case from.node == nil:
		return syscall.ENOENT
	case to.node != nil && to.node.isDir():
		return syscall.EEXIST
	case from.dir == nil:
		return syscall.EBUSY
	case from.node.contains(to.dir):
		return syscall.EINVAL
	case to.node != nil && from.node.isDir():
		return syscall.ENOTDIR
	case from.node == to.node: // not only of one name: a crash can leave a file with two
		return nil
	}
	to.set(from.node)
	from.set(nil)
	return nil
}

// The methods of afero.Fs.

func (f *Fs) Name() string { return "crashfs" }

func (f *Fs) Create(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

func (f *Fs) Open(name string) (afero.File, error) { return f.OpenFile(name, os.O_RDONLY, 0) }

func (f *Fs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	h := &file{fs: f, name: name, flag: flag}
	op := "open"
	err := f.do("open", name, func(at place) error {
		h.node = at.node
		switch {
		case at.node == nil && flag&os.O_CREATE == 0:
			return syscall.ENOENT
		case at.node == nil:
			op, h.node = "create", newNode(meta{perm.Perm(), now()})
			at.set(h.node)
		case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
			return syscall.EEXIST
		case at.node.isDir() && flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC) != 0:
			return syscall.EISDIR
		case flag&os.O_TRUNC != 0:
			op = "truncate"
			at.node.resize(0)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.tell(op, name)
	return h, nil
}

func (f *Fs) Mkdir(name string, perm os.FileMode) error {
	return f.do("mkdir", name, func(at place) error {
		if at.node != nil {
			return syscall.EEXIST
		}
		at.set(newNode(meta{os.ModeDir | perm.Perm(), now()}))
		return nil
	})
}

func (f *Fs) MkdirAll(name string, perm os.FileMode) error {
	err := f.Mkdir(name, perm)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.MkdirAll(path.Dir(path.Clean(filepath.ToSlash(name))), perm); err == nil {
			err = f.Mkdir(name, perm)
		}
	}
	if fi, statErr := f.Stat(name); statErr == nil && errors.Is(err, fs.ErrExist) {
		if fi.IsDir() {
			return nil
		}
		err = &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
	}
	return err
}

func (f *Fs) Remove(name string) error {
	return f.do("remove", name, func(at place) error {
		switch {
		case at.node == nil:
			return syscall.ENOENT
		case at.dir == nil:
			return syscall.EBUSY
		case len(at.node.list()) > 0:
			return syscall.ENOTEMPTY
		}
		at.remove()
		return nil
	})
}

func (f *Fs) RemoveAll(name string) error {
	err := f.do("removeall", name, func(at place) error {
		switch {
		case at.dir == nil:
			return syscall.EBUSY
		case at.node != nil:
			at.remove()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Rename does not replace a directory, not even an empty one, as [os.Rename].
func (f *Fs) Rename(oldname, newname string) error {
	f.mu.Lock()
	from, err := f.find(oldname)
	to, toErr := f.find(newname)
	if err = cmp.Or(err, toErr); err == nil {
		err = rename(from, to)
	}
	f.mu.Unlock()
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	f.tell("rename", oldname, newname)
	return nil
}

func (f *Fs) Stat(name string) (fi os.FileInfo, err error) {
	err = f.existing("stat", name, func(n *node) { fi = n.info(name) })
	return fi, err
}

// Chown only fails where it must.
func (f *Fs) Chown(name string, uid, gid int) error {
	return f.existing("chown", name, func(*node) {})
}

func (f *Fs) Chmod(name string, mode os.FileMode) error {
	return f.existing("chmod", name, func(n *node) { n.meta.mode = n.meta.mode.Type() | mode.Perm() })
}

func (f *Fs) Chtimes(name string, atime, mtime time.Time) error {
	return f.existing("chtimes", name, func(n *node) {
		if !mtime.IsZero() { // which leaves it as it is, as in package os
			n.meta.time = mtime.Round(0)
		}
	})
}

// Crash returns the filesystem as it is found after a power cut now. The one
// that loses power is a copy: f itself goes on.
//
// If r is nil, all that is not durable is lost. Otherwise r decides it fact by
// fact. A name may mean anything that it has meant since its directory was
// synced. The data of a file may be as it was synced or as it was last; or it
// may break off, or be zero from there on, anywhere after what has not changed
// since. The result depends on nothing but f and r, and all of it is durable.
func (f *Fs) Crash(r *rand.Rand) *Fs {
	f.mu.Lock()
	defer f.mu.Unlock()
	choose := func(n int) int { // 0 stands for what is durable
		if r == nil {
			return 0
		}
		return r.IntN(n)
	}
	return &Fs{root: f.root.survivor(choose, map[*node]*node{})}
}

// survivor remembers what it has done, so that a file found under two names is
// one file. It returns nil for a directory that it is in the middle of: that
// would be inside itself, as can happen when only some of several renames
// survive, and no repair of a filesystem leaves it there.
func (n *node) survivor(choose func(int) int, done map[*node]*node) *node {
	if s, ok := done[n]; ok {
		return s
	}
	done[n] = nil
	s := newNode([]meta{n.synced, n.meta}[choose(2)])
	s.durable = n.content(choose)
	s.data = slices.Clone(s.durable)
	for _, base := range slices.Sorted(maps.Keys(n.names)) { // sorted, because each takes a number from r
		if child := n.names[base][choose(len(n.names[base]))]; child != nil {
			if child = child.survivor(choose, done); child != nil {
				s.names[base] = []*node{child}
			}
		}
	}
	done[n] = s
	return s
}

func (n *node) content(choose func(int) int) []byte {
	if !n.dirty {
		return n.durable
	}
	data := slices.Clone(n.data)
	cut := n.intact + choose(len(data)-n.intact+1)
	switch choose(4) {
	case 0:
		return n.durable
	case 1:
		return data[:cut]
	case 2:
		clear(data[cut:])
	}
	return data
}
