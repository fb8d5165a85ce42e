package ldap

import (
	"slices"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"
)

// counters reads how 389 Directory Server counts its changes: lastusn of each database where its USN plugin runs, and
// lastchangenumber where the retro changelog does. Deletions count. The numbers are given out before the change is
// committed: a marker of them is late.
func (s *session) counters() (marker, error) {
	root, err := s.search("", goldap.ScopeBaseObject, "(objectClass=*)", []string{"lastusn", "lastchangenumber", "dataversion"})
	if err != nil || len(root.Entries) != 1 {
		return marker{}, err
	}
	var counts []string
	version := ""
	for _, a := range root.Entries[0].Attributes {
		name := strings.ToLower(a.Name)
		for _, v := range a.Values {
			switch {
			case name == "dataversion":
				version = v
			case name == "lastchangenumber", strings.HasPrefix(name, "lastusn;"):
				counts = append(counts, name+"="+v)
			}
		}
	}
	if len(counts) == 0 {
		return marker{}, nil
	}
	slices.Sort(counts)
	m := marker{text: "dataversion=" + version, late: true}
	for _, c := range counts {
		m.text += " " + c
	}
	return m, nil
}
