// Package crashfs is a filesystem in memory that can lose power. A power cut
// loses every change that was not synced:
//
//   - The data, size and modification time of a file are durable once the file
//     is synced.
//   - The entries of a directory are durable once the directory is synced. Each
//     entry is lost or kept by itself: a rename changes two.
//
// Real disks often lose less. Before the cut it behaves like a local filesystem
// on Linux, but has no permissions and no links.
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

// Fs is a filesystem that can lose power. It is safe for concurrent use.
type Fs struct {
	mu    sync.Mutex
	root  *node
	after func(op string)
}

// A node is a file or a directory. It does not know its names.
type node struct {
	meta   meta
	synced meta // meta at the last Sync

	// Of a file:
	data    []byte
	durable []byte // data as of the last Sync; never written to
	dirty   bool   // data was changed since the last Sync
	intact  int    // length of the part of data before the first change

	// Of a directory: the history of each entry, from the last Sync to now. Nil
	// means that there was no entry.
	names   map[string][]*node
	removed bool
}

type meta struct {
	mode os.FileMode
	time time.Time
}

func newNode(m meta) *node { return &node{meta: m, synced: m, names: map[string][]*node{}} }

// now has no monotonic clock, because a disk does not keep one.
func now() time.Time { return time.Now().Round(0) }

func (n *node) isDir() bool { return n.meta.mode.IsDir() }

func (n *node) child(base string) *node {
	if history := n.names[base]; len(history) > 0 {
		return history[len(history)-1]
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

// resize sets the length of the data. New bytes are zero, even where the file was
// longer before.
func (n *node) resize(size int64) {
	n.touch(size)
	n.data = append(n.data[:min(size, int64(len(n.data)))], make([]byte, max(0, size-int64(len(n.data))))...)
}

// touch marks the data as changed from off on.
func (n *node) touch(off int64) {
	if !n.dirty {
		n.dirty, n.intact = true, len(n.data)
	}
	n.intact = int(min(off, int64(n.intact), int64(len(n.data))))
	n.meta.time = now()
}

// A place is the directory entry that a path names.
type place struct {
	dir  *node // nil for the root
	base string
	node *node // nil if there is no such entry
}

// set makes the entry point to n, or removes it if n is nil.
func (at place) set(n *node) {
	history := at.dir.names[at.base]
	if history == nil {
		history = []*node{nil}
	}
	at.dir.names[at.base] = append(history, n)
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

// New returns a filesystem with an empty root.
func New() *Fs { return &Fs{root: newNode(meta{os.ModeDir | 0o755, now()})} }

// After sets a function that is called after every change and every sync. Its
// argument is the operation with its paths, such as "rename a b" or "sync a".
// Operations that fail change nothing and are not reported. No lock is held, so
// fn may call Crash. Nil removes the function.
func (f *Fs) After(fn func(op string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = fn
}

func (f *Fs) report(op string, names ...string) {
	f.mu.Lock()
	after := f.after
	f.mu.Unlock()
	if after != nil && !slices.Contains([]string{"open", "read", "readdirent", "seek", "stat"}, op) {
		after(op + " " + strings.Join(names, " "))
	}
}

// find returns the entry that name leads to. It fails if the directory of name
// does not exist.
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

// do runs an operation on the entry that name leads to, which may be empty.
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
	f.report(op, name)
	return nil
}

// existing is do for an entry that must exist.
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
	case from.node == to.node: // after a crash, two entries can be one file
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
	f.report(op, name)
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

// Rename refuses to replace a directory, even an empty one, as [os.Rename] does.
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
	f.report("rename", oldname, newname)
	return nil
}

func (f *Fs) Stat(name string) (fi os.FileInfo, err error) {
	err = f.existing("stat", name, func(n *node) { fi = n.info(name) })
	return fi, err
}

// Chown changes nothing. It fails if there is no such file.
func (f *Fs) Chown(name string, uid, gid int) error {
	return f.existing("chown", name, func(*node) {})
}

func (f *Fs) Chmod(name string, mode os.FileMode) error {
	return f.existing("chmod", name, func(n *node) { n.meta.mode = n.meta.mode.Type() | mode.Perm() })
}

func (f *Fs) Chtimes(name string, atime, mtime time.Time) error {
	return f.existing("chtimes", name, func(n *node) {
		if !mtime.IsZero() { // as in package os, zero changes nothing
			n.meta.time = mtime.Round(0)
		}
	})
}

// Crash returns the filesystem after a power cut at this moment. The result is a
// copy; f is unchanged. All of the result is durable. It depends only on f and r.
//
// If r is nil, every change that is not durable is lost. Otherwise r decides for
// each change by itself. An entry may have any state that it had since its
// directory was synced. A file may have the data of its last sync or its current
// data. Its current data may also end, or be zero, from any point after the first
// change on.
func (f *Fs) Crash(r *rand.Rand) *Fs {
	f.mu.Lock()
	defer f.mu.Unlock()
	choose := func(n int) int { // 0 chooses the durable state
		if r == nil {
			return 0
		}
		return r.IntN(n)
	}
	return &Fs{root: f.root.survivor(choose, map[*node]*node{})}
}

// survivor returns n after the crash. done maps finished nodes to their results,
// so that a file with two names stays one file. If only some renames survive, a
// directory can be inside itself. survivor returns nil for the inner one, because
// a filesystem check would remove it.
func (n *node) survivor(choose func(int) int, done map[*node]*node) *node {
	if s, ok := done[n]; ok {
		return s
	}
	done[n] = nil
	s := newNode([]meta{n.synced, n.meta}[choose(2)])
	s.durable = n.content(choose)
	s.data = slices.Clone(s.durable)
	for _, base := range slices.Sorted(maps.Keys(n.names)) { // sorted, so that the result depends on r only
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
