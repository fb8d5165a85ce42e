package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// family is what kind of server it is, for hints in its own language.
type family uint8

const (
	familyOther family = iota
	familyOpenLDAP
	family389
	familyFreeIPA
	familyActiveDirectory
	familySamba
)

func (f family) String() string {
	switch f {
	case familyOpenLDAP:
		return "OpenLDAP"
	case family389:
		return "389 Directory Server"
	case familyFreeIPA:
		return "FreeIPA"
	case familyActiveDirectory:
		return "Active Directory"
	case familySamba:
		return "Samba"
	case familyOther:
	}
	return "an LDAP server of an unknown kind"
}

// preset is the schema that suits the family.
func (f family) preset() string {
	switch f {
	case family389:
		return "389ds"
	case familyFreeIPA:
		return "freeipa"
	case familyActiveDirectory:
		return "active-directory"
	case familySamba:
		return "samba"
	case familyOpenLDAP, familyOther:
	}
	return "openldap"
}

// identity is the form that every entry of such a server has; false when nothing is known.
func (f family) identity() (directory.IdentityForm, bool) {
	s, ok := directory.PresetNamed(f.preset())
	return s.Identity, ok && f != familyOther
}

// The capability that every Active Directory has (MS-ADTS 3.1.1.3.4.3.1), and FreeIPA's naming of itself.
const capabilityActiveDirectory = "1.2.840.113556.1.4.800"

func familyOf(root *goldap.Entry) family {
	vendor := strings.ToLower(root.GetEqualFoldAttributeValue("vendorName"))
	switch {
	case strings.Contains(vendor, "samba"):
		return familySamba
	case slices.Contains(root.GetEqualFoldAttributeValues("supportedCapabilities"), capabilityActiveDirectory):
		return familyActiveDirectory
	case root.GetEqualFoldAttributeValue("ipaTopologyPluginVersion") != "" || root.GetEqualFoldAttributeValue("ipaDomainLevel") != "":
		return familyFreeIPA
	case strings.Contains(vendor, "389"):
		return family389
	case slices.Contains(root.GetEqualFoldAttributeValues("objectClass"), "OpenLDAProotDSE"):
		return familyOpenLDAP
	}
	return familyOther
}

// grant says how to let us read attributes.
func (c *checker) grant(attributes ...string) string {
	who := strings.Trim(c.who, `"`)
	switch c.family {
	case familyOpenLDAP:
		by := fmt.Sprintf("dn.exact=%q", who)
		if _, anonymous := c.Bind.(Anonymous); anonymous {
			by = "anonymous"
		}
		return fmt.Sprintf("grant it, before other rules: access to dn.subtree=%q attrs=entry,%s by %s read by * break (olcAccess of the database)", c.Base, strings.Join(attributes, ","), by)
	case family389, familyFreeIPA:
		return fmt.Sprintf(`grant it at %s: aci: (targetattr=%q)(version 3.0; acl "bailiwick"; allow (read,search,compare) userdn="ldap:///%s";)`, c.Base, strings.Join(attributes, " || "), who)
	case familyActiveDirectory:
		var rights []string
		for _, a := range attributes {
			rights = append(rights, fmt.Sprintf(`/G "ACCOUNT:RP;%s"`, a))
		}
		return fmt.Sprintf("grant it to the account of %s: dsacls %q /I:T %s", who, c.Base, strings.Join(rights, " "))
	case familySamba:
		return fmt.Sprintf("grant the account of %s to read %s: samba-tool dsacl set --objectdn=%q --sddl='(A;CI;RP;;;SID-OF-THE-ACCOUNT)'", who, strings.Join(attributes, ", "), c.Base)
	case familyOther:
	}
	return fmt.Sprintf("let %s read %s of all entries below %s", who, strings.Join(attributes, ", "), c.Base)
}

// raiseLimits says how to let us read everything.
func (c *checker) raiseLimits() string {
	who := strings.Trim(c.who, `"`)
	switch c.family {
	case familyOpenLDAP:
		return fmt.Sprintf("raise it for us: limits dn.exact=%q size=unlimited time=unlimited (olcLimits of the database)", who)
	case family389, familyFreeIPA:
		return fmt.Sprintf("raise it for us: set nsSizeLimit, nsTimeLimit, nsLookThroughLimit, nsPagedSizeLimit and nsPagedLookThroughLimit of %s to -1", who)
	case familyActiveDirectory:
		return "raise MaxQueryDuration and MaxResultSetSize in the query policy (ntdsutil, LDAP policies), or use a smaller base"
	case familySamba, familyOther:
	}
	return hints[ErrLimit]
}

// hintFor says what to do about an error of a search.
func (c *checker) hintFor(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return ""
	}
	switch {
	case errors.Is(e.Kind, ErrLimit):
		return c.raiseLimits()
	case errors.Is(e.Kind, ErrDenied):
		return c.grant(c.Schema.Attributes()...)
	case errors.Is(e.Kind, ErrReferral):
		return "use the server that the reference leads to, or make it a source of its own beside this one with a base that is wholly here"
	}
	return hints[e.Kind]
}

// changesHint says how to be told of changes.
func (c *checker) changesHint() string {
	switch c.family {
	case familyOpenLDAP:
		return "load the overlay: moduleload syncprov, then overlay syncprov in the database (olcOverlay=syncprov); without it every poll reads the whole tree"
	case family389, familyFreeIPA:
		return "enable the Content Synchronization plugin: dsconf INSTANCE plugin contentsync enable, then restart"
	case familyActiveDirectory, familySamba, familyOther:
	}
	return ""
}
