package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Version is one policy as the controller assigned it.
type Version struct {
	Revision  uint64         `json:"revision"`
	Digest    compile.Digest `json:"-"`
	DigestHex string         `json:"digest"`
	Policy    string         `json:"policy"`    // name
	Container string         `json:"container"` // DN whose link won; empty when none
	Content   []byte         `json:"content"`   // the bundle
}

// open checks the digest and decodes the bundle.
func (v Version) open() (spd.Policy, error) { return compile.Open(v.Content, v.Digest) }

// lastGood is what a node needs to go on without its controller.
type lastGood struct {
	Version     Version          `json:"version"`
	Controllers []netip.AddrPort `json:"controllers"`
	// Names are the latest answers for its DNS names.
	Names map[string][]netip.Addr `json:"names,omitempty"`
}

// cache keeps the last good policy on disk.
type cache struct{ path string }

const (
	cacheFile = "policy.json"
	maxCache  = 64 << 20
)

func newCache(dir string) (cache, error) {
	if err := statefile.Dir(dir); err != nil {
		return cache{}, err
	}
	return cache{filepath.Join(dir, cacheFile)}, nil
}

func (c cache) save(g lastGood) error {
	g.Version.DigestHex = g.Version.Digest.String()
	content, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("encode the policy in force: %w", err)
	}
	return statefile.Write(c.path, content)
}

// load returns the stored policy. found is false where none was ever stored; a file that cannot be read or was altered
// is an error, never "none".
func (c cache) load() (g lastGood, found bool, err error) {
	content, err := statefile.Read(c.path, maxCache)
	if errors.Is(err, fs.ErrNotExist) {
		return lastGood{}, false, nil
	}
	if err != nil {
		return lastGood{}, false, err
	}
	if g, err = parseLastGood(content); err != nil {
		return lastGood{}, false, fmt.Errorf("read the last good policy from %s: %w", c.path, err)
	}
	return g, true, nil
}

// parseLastGood reads the content of the file, and refuses what was altered.
func parseLastGood(content []byte) (g lastGood, err error) {
	if err := json.Unmarshal(content, &g); err != nil {
		return lastGood{}, err
	}
	if g.Version.Digest, err = compile.ParseDigest(g.Version.DigestHex); err != nil {
		return lastGood{}, err
	}
	if _, err := g.Version.open(); err != nil {
		return lastGood{}, err
	}
	return g, nil
}
