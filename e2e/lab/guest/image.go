package guest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// kernel is Debian 12's kernel for virtual machines: it has ESP, AH and all that IPsec needs as modules.
var kernel = root.Config{Suite: "bookworm", Packages: []string{"linux-image-cloud-amd64"}}

// left are what a guest does not need of a root.
var left = []string{
	"boot", "usr/lib/modules", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/zoneinfo",
	"usr/share/bash-completion", "usr/lib/x86_64-linux-gnu/gconv", "var/cache", "var/lib/apt",
}

// image is what a machine boots.
type image struct {
	kernel string
	system string // the first file system without the agent
}

// openImage makes the image of a root, or finds it in the cache.
func openImage(ctx context.Context, programs *root.Root) (image, error) {
	linux, err := root.Open(ctx, kernel)
	if err != nil {
		return image{}, err
	}
	kernels, err := filepath.Glob(filepath.Join(linux.Dir, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return image{}, fmt.Errorf("find the kernel in %s: %v, %w", linux.Dir, kernels, errors.Join(err, os.ErrNotExist))
	}
	cache, err := root.CacheDir()
	if err != nil {
		return image{}, err
	}
	// The roots are named by what they hold.
	sum := sha256.Sum256(fmt.Append(nil, modules, left, filepath.Base(linux.Dir), filepath.Base(programs.Dir)))
	name := fmt.Sprintf("guest-%x.cpio", sum[:6])
	i := image{kernel: kernels[0], system: filepath.Join(cache, name)}
	err = root.Once(i.system, func(unfinished string) error { return makeSystem(unfinished, linux.Dir, programs.Dir) })
	if err != nil {
		return image{}, fmt.Errorf("make the image of a guest: %w", err)
	}
	return i, nil
}

func makeSystem(path, linux, programs string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	a := newArchive(file)
	err = a.tree(programs, func(path string) bool {
		for _, l := range left {
			if path == l {
				return true
			}
		}
		return strings.HasPrefix(path, "usr/share/") && strings.HasSuffix(path, ".gz")
	})
	if err == nil {
		err = addModules(a, linux)
	}
	return errors.Join(err, a.finish(), file.Close())
}

// addModules adds modules as plain files, with the order in which to insert them.
func addModules(a *archive, linux string) error {
	found, err := findModules(filepath.Join(linux, "usr/lib/modules"))
	if err != nil {
		return err
	}
	paths, err := order(found, modules)
	if err != nil {
		return err
	}
	var names []string
	a.directory("usr/lib/modules")
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		names = append(names, filepath.Base(path))
		a.file("usr/lib/modules/"+filepath.Base(path), 0o600, content)
	}
	a.file("usr/lib/modules/order", 0o600, []byte(strings.Join(names, "\n")+"\n"))
	return a.err
}

// addAgent writes the image of a run: that of the cache, the agent as this very checkout has it, and further programs.
func (i image) addAgent(ctx context.Context, dir string, programs map[string]string) (string, error) {
	agent := filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", agent, "github.com/bailiwick-net/bailiwick/e2e/lab/guest/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent of guests: %w\n%s", err, out)
	}
	content, err := os.ReadFile(agent)
	if err != nil {
		return "", err
	}
	system, err := os.ReadFile(i.system)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initramfs")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = file.Write(system)
	a := newArchive(file)
	a.file("init", 0o700, content)
	for inside, outside := range programs {
		content, err := os.ReadFile(outside)
		if err != nil {
			return "", errors.Join(err, file.Close())
		}
		a.file(inside, 0o755, content)
	}
	return path, errors.Join(err, a.finish(), file.Close(), os.Remove(agent))
}
