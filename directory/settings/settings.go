package settings

import (
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
)

// DefaultName is the name of the source of a configuration that has only one, without a name.
const DefaultName = "default"

// Directory is the directory section of a configuration: exactly one of LDIF, LDAP and Sources.
type Directory struct {
	LDIF *LDIF `yaml:"ldif"`
	LDAP *LDAP `yaml:"ldap"`
	// Sources are several directories or domains, in the order of their precedence: where two claim the same, the
	// earlier has it.
	Sources []Source `yaml:"sources"`
	// Removed names sources of before that are gone for good: without a word, a source that is missing here stops the
	// controller, because its machines would be cut off.
	Removed []string `yaml:"removed"`
	// Guard bounds how many machines one change of a source may affect; default a tenth, and five in any case.
	Guard Guard `yaml:"guard"`
	// Grace is how long a machine that vanished keeps its policy; default 7 days.
	Grace time.Duration `yaml:"grace"`
}

// Source is one of several directories: exactly one of LDIF and LDAP.
type Source struct {
	// Name is of lower-case letters, digits and hyphens, and lasts: state is kept under it. A source that was the only
	// one is called "default".
	Name string `yaml:"name"`
	LDIF *LDIF  `yaml:"ldif"`
	LDAP *LDAP  `yaml:"ldap"`
	// Guard and Grace are those of the whole section where they are not set.
	Guard *Guard         `yaml:"guard"`
	Grace *time.Duration `yaml:"grace"`
}

// LDIF is a directory in a file.
type LDIF struct {
	Path string `yaml:"path"`
	// Base is the top of the tree; default the one entry that all others are below.
	Base string `yaml:"base"`
}

// LDAP is a directory server; see ldap.Config.
type LDAP struct {
	URL  string `yaml:"url"`
	Base string `yaml:"base"`
	// Schema names a preset (directory.Presets), "openldap" by default; Mapping changes parts of it.
	Schema  string   `yaml:"schema"`
	Mapping *Mapping `yaml:"mapping"`
	// BindDN and PasswordFile bind by password, External by the TLS client certificate or the user over ldapi.
	BindDN       string `yaml:"bindDN"`
	PasswordFile string `yaml:"passwordFile"`
	External     bool   `yaml:"external"`
	StartTLS     bool   `yaml:"startTLS"`
	CAFile       string `yaml:"caFile"`
	ServerName   string `yaml:"serverName"`
	ClientCert   string `yaml:"clientCert"`
	ClientKey    string `yaml:"clientKey"`
	AllowClear   bool   `yaml:"allowClear"`
	// PollOnly does without content synchronization although the server may offer it.
	PollOnly bool          `yaml:"pollOnly"`
	Interval time.Duration `yaml:"interval"`
	Timeout  time.Duration `yaml:"timeout"`
	// Assignment is "native" where the Group Policy objects of an Active Directory domain assign its IPsec policies, which
	// are read with their links; "bailiwick", the default, where documents alone do.
	Assignment string `yaml:"assignment"`
	// Sites is "native" where sites and subnets of the forest are read; "bailiwick", the default, where documents alone say
	// what sites there are. Native assignment reads them too, because Group Policy objects are linked to them.
	Sites string `yaml:"sites"`
}

// Mapping replaces parts of a preset; what is not written stays as the preset has it, an empty list is empty.
type Mapping struct {
	// Identity is "entryUUID", "objectGUID" or "nsUniqueId".
	Identity         string    `yaml:"identity"`
	MachineClasses   *[]string `yaml:"machineClasses"`
	ExcludedClasses  *[]string `yaml:"excludedClasses"`
	GroupClasses     *[]string `yaml:"groupClasses"`
	ContainerClasses *[]string `yaml:"containerClasses"`
	// MachineFilter and GroupFilter are filters (RFC 4515) that narrow what the classes name.
	MachineFilter  string    `yaml:"machineFilter"`
	GroupFilter    string    `yaml:"groupFilter"`
	MachineName    *[]string `yaml:"machineName"`
	MachineDNSName *[]string `yaml:"machineDNSName"`
	MachineAddress *[]string `yaml:"machineAddress"`
	GroupName      *[]string `yaml:"groupName"`
	GroupMember    *[]string `yaml:"groupMember"`
	AccountControl *[]string `yaml:"accountControl"`
	LockFlags      *[]string `yaml:"lockFlags"`
	PrimaryGroup   *string   `yaml:"primaryGroup"`
	SID            *string   `yaml:"sid"`
}

// Guard is guard.Limits as written, each 0 for that of guard.Default.
type Guard struct {
	Share   float64       `yaml:"share"`
	Floor   int           `yaml:"floor"`
	Ceiling int           `yaml:"ceiling"`
	Window  time.Duration `yaml:"window"`
	// Containers have limits of their own, beside these.
	Containers []GuardContainer `yaml:"containers"`
}

// GuardContainer is guard.ContainerLimits as written.
type GuardContainer struct {
	Container string  `yaml:"container"`
	Share     float64 `yaml:"share"`
	Floor     int     `yaml:"floor"`
	Ceiling   int     `yaml:"ceiling"`
}

// Checked is a Directory that can be used.
type Checked struct {
	// Sources are in the order of their precedence; at least one.
	Sources []CheckedSource
	Removed []string
}

// CheckedSource is one source that can be opened.
type CheckedSource struct {
	Name string
	// Path and Base are of an LDIF file, LDAP of a server: Path is "" exactly when LDAP is set.
	Path string
	Base directory.DN
	LDAP *ldap.Config

	Limits     guard.Limits
	Containers []guard.ContainerLimits
	// Grace is 0 for the default.
	Grace time.Duration
	// NativeAssignment and NativeSites say what is read of Group Policy beside the tree.
	NativeAssignment, NativeSites bool
}

// Open opens the source; nothing is read yet.
func (s CheckedSource) Open() (directory.Source, error) {
	if s.LDAP != nil {
		return ldap.Open(*s.LDAP)
	}
	return ldif.Open(s.Path, ldif.Options{Base: s.Base})
}
