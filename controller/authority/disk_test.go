package authority_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of so many octets, which ends with the test. What is full has to be a file system, and no part of
// one: a limit on the size of files is another error (EFBIG), and a quota needs root as well. Continuous integration is root.
func smallDisk(t *testing.T, octets string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system that can be filled needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+octets); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all that is left of a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	ballast, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	zeros := make([]byte, 1<<20)
	for len(zeros) > 0 {
		switch _, err := ballast.Write(zeros); {
		case errors.Is(err, unix.ENOSPC):
			zeros = zeros[:len(zeros)/2] // to the last octet
		case err != nil:
			t.Fatal(err)
		}
	}
}

// A controller whose disk fills up while it issues and rotates stops, having given nothing away that is not recorded; once there
// is room again its successor goes on from there.
func TestDiskThatIsFull(t *testing.T) {
	disk := smallDisk(t, "384m")
	dir, ballast := filepath.Join(disk, "state"), filepath.Join(disk, "ballast")
	given := map[string]bool{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that goes on is killed, and the test fails below
	defer cancel()
	cmd, lines := startVictim(ctx, t, dir, io.Discard) // etcd's last words
	for n := 0; lines.Scan(); n++ {
		given[lines.Text()] = true
		if n == 10 {
			fill(t, ballast)
		}
	}
	if err := cmd.Wait(); err == nil || ctx.Err() != nil {
		t.Fatalf("the victim ended with %v, %v; want that it stops by itself, and tells", err, ctx.Err())
	}
	t.Logf("%d certificates were given away", len(given))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	recorded(t, dir, given)
}
