package trust

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/pki"
)

const (
	// MaxGroups bounds the groups of a set.
	MaxGroups = 1024
	// MaxGroupMembers bounds the members of all groups of a set together.
	MaxGroupMembers = 150_000
	// MaxGroupName is the longest name of a group, in octets.
	MaxGroupName = 1024
	// MaxGroupsSize is the largest encoded set looked at, in octets.
	MaxGroupsSize = MaxGroupMembers*18 + MaxGroups*(MaxGroupName+16) + 64
)

const groupsFormat = 1

// Groups are the machines that are members of groups of the directory, directly or through other groups, by the names
// that policies give the groups. It is immutable; in the zero value nobody is a member of anything.
type Groups struct {
	members map[string]map[pki.UUID]struct{}
}

// NewGroups makes a set. Errors wrap ErrGroups.
func NewGroups(groups map[string][]pki.UUID) (Groups, error) {
	if len(groups) > MaxGroups {
		return Groups{}, fmt.Errorf("%d groups, more than %d: %w", len(groups), MaxGroups, ErrGroups)
	}
	g := Groups{members: make(map[string]map[pki.UUID]struct{}, len(groups))}
	total := 0
	for name, members := range groups {
		if name == "" || len(name) > MaxGroupName {
			return Groups{}, fmt.Errorf("group with a name of %d octets, of 1 to %d are possible: %w", len(name), MaxGroupName, ErrGroups)
		}
		if total += len(members); total > MaxGroupMembers {
			return Groups{}, fmt.Errorf("more than %d members of groups: %w", MaxGroupMembers, ErrGroups)
		}
		set := make(map[pki.UUID]struct{}, len(members))
		for _, m := range members {
			if m.IsZero() {
				return Groups{}, fmt.Errorf("member of %q with the nil UUID: %w", name, ErrGroups)
			}
			set[m] = struct{}{}
		}
		g.members[name] = set
	}
	return g, nil
}

// Contains reports whether a machine is a member of a group. A group that is not in the set has no members.
func (g Groups) Contains(group string, machine pki.UUID) bool {
	_, in := g.members[group][machine]
	return in
}

// Names are the groups in ascending order.
func (g Groups) Names() []string { return slices.Sorted(maps.Keys(g.members)) }

// Members are the members of a group in ascending order.
func (g Groups) Members(group string) []pki.UUID {
	return slices.SortedFunc(maps.Keys(g.members[group]), func(a, b pki.UUID) int { return bytes.Compare(a[:], b[:]) })
}

// Digest names the set. The error is that of Append.
func (g Groups) Digest() (Digest, error) {
	der, err := g.Append(nil)
	if err != nil {
		return Digest{}, err
	}
	return sha256.Sum256(der), nil
}

// Append appends the DER encoding:
//
//	SEQUENCE {
//	    INTEGER                         1, the format
//	    SEQUENCE OF SEQUENCE {          by name, ascending
//	        UTF8String                  the name of the group
//	        SEQUENCE OF OCTET STRING    UUIDs of its members, ascending
//	    }
//	}
func (g Groups) Append(dst []byte) ([]byte, error) {
	out := cryptobyte.NewBuilder(dst)
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(seq *cryptobyte.Builder) {
		seq.AddASN1Uint64(groupsFormat)
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, func(list *cryptobyte.Builder) {
			for _, name := range g.Names() {
				list.AddASN1(cryptobyte_asn1.SEQUENCE, func(group *cryptobyte.Builder) {
					group.AddASN1(cryptobyte_asn1.UTF8String, func(text *cryptobyte.Builder) { text.AddBytes([]byte(name)) })
					group.AddASN1(cryptobyte_asn1.SEQUENCE, func(members *cryptobyte.Builder) {
						for _, m := range g.Members(name) {
							members.AddASN1OctetString(m[:])
						}
					})
				})
			}
		})
	})
	der, err := out.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding groups: %w: %w", ErrGroups, err)
	}
	return der, nil
}

// ParseGroups reads the encoding of Append, and nothing but the canonical encoding. Errors wrap ErrGroups.
func ParseGroups(der []byte) (Groups, error) {
	if len(der) > MaxGroupsSize {
		return Groups{}, fmt.Errorf("groups of %d octets, more than %d: %w", len(der), MaxGroupsSize, ErrGroups)
	}
	input := cryptobyte.String(der)
	var seq, list cryptobyte.String
	var format uint64
	if !input.ReadASN1(&seq, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1Integer(&format) {
		return Groups{}, fmt.Errorf("groups are not one DER sequence that begins with a format: %w", ErrGroups)
	}
	if format != groupsFormat {
		return Groups{}, fmt.Errorf("groups of the format %d, this version reads %d: %w", format, groupsFormat, ErrGroups)
	}
	if !seq.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !seq.Empty() {
		return Groups{}, fmt.Errorf("groups are not a list: %w", ErrGroups)
	}
	groups := map[string][]pki.UUID{}
	last := ""
	for !list.Empty() {
		name, members, err := parseGroup(&list)
		if err != nil {
			return Groups{}, fmt.Errorf("group %d: %w", len(groups)+1, err)
		}
		if name <= last {
			return Groups{}, fmt.Errorf("group %d is not in ascending order: %w", len(groups)+1, ErrGroups)
		}
		groups[name], last = members, name
	}
	return NewGroups(groups)
}

func parseGroup(list *cryptobyte.String) (string, []pki.UUID, error) {
	var group, text, members cryptobyte.String
	if !list.ReadASN1(&group, cryptobyte_asn1.SEQUENCE) || !group.ReadASN1(&text, cryptobyte_asn1.UTF8String) ||
		!group.ReadASN1(&members, cryptobyte_asn1.SEQUENCE) || !group.Empty() {
		return "", nil, fmt.Errorf("not a name and a list of members: %w", ErrGroups)
	}
	var out []pki.UUID
	for !members.Empty() {
		var m []byte
		if !members.ReadASN1Bytes(&m, cryptobyte_asn1.OCTET_STRING) || len(m) != len(pki.UUID{}) {
			return "", nil, fmt.Errorf("member %d is not a UUID: %w", len(out)+1, ErrGroups)
		}
		if n := len(out); n > 0 && bytes.Compare(out[n-1][:], m) >= 0 {
			return "", nil, fmt.Errorf("member %d is not in ascending order: %w", n+1, ErrGroups)
		}
		out = append(out, pki.UUID(m))
	}
	return string(text), out, nil
}
