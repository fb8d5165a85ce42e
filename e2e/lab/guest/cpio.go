package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// archive writes a cpio archive in the "newc" form that Linux unpacks as its first file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). Several of them may follow each other.
type archive struct {
	out     *bufio.Writer
	written int64
	inode   uint32
	err     error
}

func newArchive(w io.Writer) *archive { return &archive{out: bufio.NewWriterSize(w, 1<<20)} }

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	var n int
	n, a.err = a.out.Write(b)
	a.written += int64(n)
}

// pad fills up to a multiple of four octets.
func (a *archive) pad() { a.write(make([]byte, (4-a.written%4)%4)) }

// add writes one file. The kernel wants the name without a leading slash.
func (a *archive) add(name string, mode uint32, device uint64, content []byte) {
	a.inode++
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.inode, mode, 0, 0, 1, 0,
		len(content), 0, 0, unix.Major(device), unix.Minor(device), len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(content)
	a.pad()
}

func (a *archive) directory(name string) { a.add(name, unix.S_IFDIR|0o755, 0, nil) }

func (a *archive) file(name string, mode fs.FileMode, content []byte) {
	a.add(name, unix.S_IFREG|uint32(mode.Perm()), 0, content)
}

func (a *archive) link(name, target string) { a.add(name, unix.S_IFLNK|0o777, 0, []byte(target)) }

// tree adds what a directory holds, but for the paths that skip wants left out. Devices are made by the guest.
func (a *archive) tree(dir string, skip func(path string) bool) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if skip(name) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch info.Mode().Type() {
		case fs.ModeDir:
			a.directory(name)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			a.link(name, target)
		case 0:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			a.file(name, info.Mode(), content)
		default:
		}
		return a.err
	})
}

// finish ends the archive.
func (a *archive) finish() error {
	a.add("TRAILER!!!", 0, 0, nil)
	if a.err == nil {
		a.write(make([]byte, (512-a.written%512)%512))
	}
	return errors.Join(a.err, a.out.Flush())
}
