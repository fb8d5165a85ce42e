package guest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules are what a guest needs: its devices, IPsec, and the algorithms, which the kernel would ask modprobe for.
var modules = []string{
	"virtio_mmio", "virtio_console", "virtio_net",
	"esp4", "esp6", "ah4", "ah6", "xfrm_user", "dummy", "veth", "tun", "bridge",
	"nf_tables", "nft_ct", "nft_fib_inet", "nft_tproxy", "nft_queue", "nfnetlink_queue", "nft_chain_nat", "nft_masq", "nf_conntrack_netlink",
	"jitterentropy_rng", "drbg", "ctr", "gcm", "seqiv", "echainiv", "authenc", "authencesn", "sha512_generic", "chacha_generic", "poly1305_generic", "chacha20poly1305", "aesni_intel",
}

// module is one kernel module and the names of those that it needs.
type module struct {
	path  string
	needs []string
}

// findModules reads the modules of a kernel below a directory.
func findModules(dir string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			// Names have either character, and the kernel takes them for the same.
			found[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return found, err
}

// order returns the paths of the wanted modules and of all that they need, each after those that it needs.
func order(found map[string]string, wanted []string) ([]string, error) {
	var paths []string
	var visit func(name string, above []string) error
	visit = func(name string, above []string) error {
		path, ok := found[name]
		if !ok {
			return fmt.Errorf("kernel module %s: the kernel package does not have it", name)
		}
		if slices.Contains(paths, path) {
			return nil
		}
		if slices.Contains(above, name) {
			return fmt.Errorf("kernel module %s needs itself: %v", name, above)
		}
		m, err := readModule(path)
		if err != nil {
			return err
		}
		for _, need := range m.needs {
			if err := visit(need, append(slices.Clone(above), name)); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// readModule reads what a module says of itself. depmod, which would collect that, runs when kernels are installed.
func readModule(path string) (module, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return module{}, err
	}
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return module{}, fmt.Errorf("kernel module %s: %w", path, err)
	}
	section := file.Section(".modinfo")
	if section == nil {
		return module{}, fmt.Errorf("kernel module %s: %w", path, errors.New("it says nothing of itself"))
	}
	info, err := section.Data()
	if err != nil {
		return module{}, fmt.Errorf("kernel module %s: %w", path, err)
	}
	m := module{path: path}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if needs, ok := strings.CutPrefix(string(field), "depends="); ok && needs != "" {
			for _, need := range strings.Split(needs, ",") {
				m.needs = append(m.needs, strings.ReplaceAll(need, "-", "_"))
			}
		}
	}
	return m, nil
}
