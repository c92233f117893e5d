package imagestore

import (
	"os"
	"syscall"
)

// isLocal reports whether a file is on a filesystem where a stat shows at once
// what any process has changed. A network filesystem may answer from its
// attribute cache, and asks the server only when a file is opened.
func isLocal(f *os.File) (local bool) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	_ = conn.Control(func(fd uintptr) {
		var stat syscall.Statfs_t
		if syscall.Fstatfs(int(fd), &stat) != nil {
			return
		}
		switch uint32(stat.Type) { // see linux/magic.h
		case 0xef53, // ext2, ext3, ext4
			0x58465342, // XFS
			0x9123683e, // Btrfs
			0x2fc12fc1, // ZFS
			0xf2f52010, // F2FS
			0x01021994, // tmpfs
			0x794c7630: // overlayfs, which containers have
			local = true
		}
	})
	return local
}

// sameChange reports whether a file was not changed between two stats of it. Its
// modification time can be set back, and its inode can be given to another file,
// but the time of the last change cannot be set.
func sameChange(a, b os.FileInfo) bool {
	was, ok := a.Sys().(*syscall.Stat_t)
	is, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && was.Ctim == is.Ctim
}
