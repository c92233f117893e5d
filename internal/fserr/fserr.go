// Package fserr classifies errors of filesystems, on every operating system.
package fserr

import (
	"errors"
	"io/fs"
	"runtime"
	"syscall"
)

// Windows' error codes, which mean something else on other systems.
const (
	windowsTooManyFiles     = syscall.Errno(4)
	windowsAccessDenied     = syscall.Errno(5)
	windowsNotSameDevice    = syscall.Errno(17)
	windowsWriteProtect     = syscall.Errno(19)
	windowsSharingViolation = syscall.Errno(32)
	windowsHandleDiskFull   = syscall.Errno(39)
	windowsDiskFull         = syscall.Errno(112)
)

// IsNotExist reports whether there is no such file. ENOTDIR and ELOOP mean that
// a file, or a link to itself, stands where a directory would be.
func IsNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// IsUnsupported reports whether the filesystem lacks the operation, as distinct
// from having failed at it. Some network and FUSE filesystems answer EINVAL to
// fsync of a directory.
func IsUnsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}

// IsSyncUnsupported reports whether a directory cannot be synced. Windows, which
// does not need it, denies the access.
func IsSyncUnsupported(err error) bool {
	return IsUnsupported(err) || isWindows(err, windowsAccessDenied)
}

// IsNoSpace reports whether the filesystem or a quota is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || isWindows(err, windowsHandleDiskFull, windowsDiskFull)
}

// IsReadOnly reports whether the filesystem refuses every change. EPERM is what
// afero's read-only filesystems return. A directory that the process may not
// write is EACCES, and a mistake in the installation.
func IsReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EPERM) || isWindows(err, windowsWriteProtect)
}

// IsInUse reports whether an operation failed because the file is open elsewhere.
// Windows refuses to rename or remove such a file. It also refuses to open or stat a
// file while it is renamed or removed. Some network filesystems do the same.
func IsInUse(err error) bool {
	return errors.Is(err, syscall.EBUSY) || isWindows(err, windowsAccessDenied, windowsSharingViolation)
}

// IsTooManyFiles reports whether the process, or the system, has no file descriptor
// left.
func IsTooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || isWindows(err, windowsTooManyFiles)
}

// IsUnreachable reports whether a network or FUSE filesystem has lost its server.
func IsUnreachable(err error) bool {
	return errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EHOSTDOWN) ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ETIMEDOUT)
}

// IsCrossDevice reports whether a file cannot be renamed because the new name is on
// another filesystem.
func IsCrossDevice(err error) bool {
	return errors.Is(err, syscall.EXDEV) || isWindows(err, windowsNotSameDevice)
}

func isWindows(err error, codes ...syscall.Errno) bool {
	if runtime.GOOS != "windows" {
		return false
	}
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
