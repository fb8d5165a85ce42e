package root

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// keyring verifies every suite that the running Debian knows of.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// aptConf keeps what apt reads and writes apart from the machine's own, whose proxies and credentials still apply. The
// state is empty, so that apt resolves as if nothing were installed.
const aptConf = `Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
`

// build downloads and unpacks. Packages are unpacked, not configured: no script of theirs runs on the machine, and
// daemons need no more than their files.
func build(ctx context.Context, config Config, dir string) error {
	work, err := os.MkdirTemp("", "apt")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	archives, err := download(ctx, config, work)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := prepare(dir); err != nil {
		return err
	}
	for _, archive := range archives {
		if err := unpack(ctx, archive, dir); err != nil {
			return err
		}
	}
	return furnish(dir)
}

// download returns the paths of the packages.
func download(ctx context.Context, config Config, work string) ([]string, error) {
	mirror, err := mirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, sub), 0o700); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(work, "apt.conf")
	for file, content := range map[string]string{
		conf:                          fmt.Sprintf(aptConf, work),
		filepath.Join(work, "status"): "",
		filepath.Join(work, "sources.list"): fmt.Sprintf("deb [target=Packages signed-by=%s arch=%s] %s %s main\n",
			keyring, runtime.GOARCH, mirror, config.Suite),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	if _, err := run(ctx, "apt-get", "-c", conf, "--error-on=any", "-qq", "update"); err != nil {
		return nil, err
	}
	// Packages rely on these without saying so.
	install := append([]string{"-c", conf, "-qq", "-y", "--download-only", "install", "base-files", "dash", "coreutils"}, config.Packages...)
	if _, err := run(ctx, "apt-get", install...); err != nil {
		return nil, err
	}
	archives, err := filepath.Glob(filepath.Join(work, "cache/archives/*.deb"))
	if err == nil && len(archives) == 0 {
		err = fmt.Errorf("apt downloaded no package for %v", config.Packages)
	}
	return archives, err
}

// mirror is the address of the Debian mirror among the machine's own package sources.
func mirror(ctx context.Context) (string, error) {
	out, err := run(ctx, "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		label, uri, _ := strings.Cut(strings.TrimSpace(line), " ")
		// Before the first apt-get update the label is not known, and the path has to do.
		if label == "Debian" || label != "Debian-Security" && strings.HasSuffix(uri, "/debian/") {
			return uri, nil
		}
	}
	return "", errors.New("the machine's own apt has no source with the packages of Debian")
}

// prepare makes the directories that must not be links into the machine, and the merged /usr of every suite since 12.
func prepare(dir string) error {
	for _, sub := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "tmp", "run", "proc", "sys", "dev/net", "etc", "root", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	return os.Symlink("/run", filepath.Join(dir, "var/run"))
}

func unpack(ctx context.Context, archive, dir string) error {
	out := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", archive)
	in := exec.CommandContext(ctx, "tar", "--extract", "--keep-directory-symlink", "--preserve-permissions", "--numeric-owner", "--directory", dir)
	pipe, err := out.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	in.Stdin, in.Stderr, out.Stderr = pipe, &said, &said
	if err := out.Start(); err != nil {
		return err
	}
	err = errors.Join(in.Run(), out.Wait())
	if err != nil {
		return fmt.Errorf("unpack %s: %w: %s", filepath.Base(archive), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// furnish adds the little that maintainer scripts would: accounts, an empty identity, devices.
func furnish(dir string) error {
	for file, content := range map[string]string{
		"etc/passwd":     "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"etc/group":      "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":      "127.0.0.1 localhost\n::1 localhost\n",
		"etc/machine-id": "",
	} {
		err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644)
		if err != nil {
			return err
		}
	}
	for _, device := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}, {"net/tun", 10, 200}} {
		path := filepath.Join(dir, "dev", device.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(device.major, device.minor))); err != nil {
			return fmt.Errorf("make device %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}
