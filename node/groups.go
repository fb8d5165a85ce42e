package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// groupsFile is where a node keeps who is a member of the groups that policies name, so that a restart without the
// controller does not cut those machines off.
const groupsFile = "groups.der"

// groups are what this node knows of groups of the directory. They are safe for concurrent use.
type groups struct {
	path string
	set  atomic.Pointer[trust.Groups]
}

// loadGroups reads what was stored; nothing stored is nobody in any group.
func loadGroups(dir string) (*groups, error) {
	g := &groups{path: filepath.Join(dir, groupsFile)}
	g.set.Store(&trust.Groups{})
	content, err := statefile.Read(g.path, trust.MaxGroupsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return nil, err
	}
	set, err := trust.ParseGroups(content)
	if err != nil {
		return nil, fmt.Errorf("read members of groups from %s, remove the file to start without: %w", g.path, err)
	}
	g.set.Store(&set)
	return g, nil
}

// Groups are the members of the groups that policies name.
func (g *groups) Groups() trust.Groups { return *g.set.Load() }

// SetGroups replaces the members, in memory in any case, and on the disk where it can.
func (g *groups) SetGroups(set trust.Groups) error {
	g.set.Store(&set)
	der, err := set.Append(nil)
	if err != nil {
		return err
	}
	return statefile.Write(g.path, der)
}
