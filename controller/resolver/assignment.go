package resolver

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/compile"
)

// Standing is whether a machine may take part.
type Standing uint8

// The standings. The zero value is that of a machine that the directory does not hold.
const (
	Unknown  Standing = iota
	Enabled           // in the directory
	Disabled          // in the directory, its account disabled: refused everywhere
	Vanished          // missing from the directory, within its grace time
)

func (s Standing) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Enabled:
		return "enabled"
	case Disabled:
		return "disabled"
	case Vanished:
		return "vanished"
	}
	return fmt.Sprintf("standing %d", uint8(s))
}

// Admitted says whether a machine of this standing may have a session and a certificate.
func (s Standing) Admitted() bool { return s == Enabled || s == Vanished }

// An Assignment is the policy of one machine. It is immutable.
type Assignment struct {
	Machine  directory.UUID
	Name     string
	Standing Standing
	// Revision grows with every change of Digest for this machine; 0 means that it never had an assignment.
	Revision uint64
	// Digest names the bundle.
	Digest compile.Digest
	// Policy and Container are the policy's name and the DN of the container whose link won. When no link applies they
	// are policies.NoneName and empty.
	Policy    string
	Container string
	// Problem is why the present state of directory and documents gives this machine no policy. The assignment is then
	// the one before, and Revision is 0 when there was none.
	Problem string
}

// same says whether the node would notice no difference.
func (a Assignment) same(b Assignment) bool {
	return a.Digest == b.Digest && a.Policy == b.Policy && a.Container == b.Container
}
