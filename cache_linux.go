package imagestore

import (
	"os"
	"syscall"
)

// isLocal says whether a file is on a filesystem where Stat tells at once what
// any process has changed. Those of the network remember for a while what they
// were told last, and ask again only when a file is opened.
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
		switch uint32(stat.Type) { // of linux/magic.h and its like
		case 0xef53, // ext2, ext3, ext4
			0x58465342, // XFS
			0x9123683e, // Btrfs
			0x2fc12fc1, // ZFS
			0xf2f52010, // F2FS
			0x01021994, // tmpfs
			0x794c7630: // overlayfs, what containers have
			local = true
		}
	})
	return local
}

// sameChange says whether a file has not been changed, in any way, between two
// looks at it. Its modification time can be set back, and its inode be given to
// the next file after it, but nobody sets the time of the last change.
func sameChange(a, b os.FileInfo) bool {
	was, ok := a.Sys().(*syscall.Stat_t)
	is, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && was.Ctim == is.Ctim
}
