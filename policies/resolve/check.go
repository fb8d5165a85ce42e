package resolve

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// CodeDirectory is the code of findings about names that the directory does not have.
const CodeDirectory policies.Code = "not-in-directory"

// Check compares the documents with the directory: links and settings of containers, and groups, that do not exist. They
// are warnings, because the directory changes by itself: a link without its container applies to nobody, an apply group
// that is missing has no members, and neither has a deny group, so that the link applies to those it should leave out.
func Check(s *directory.Snapshot, d policies.Documents) []policies.Finding {
	var out []policies.Finding
	find := func(doc policies.Document, format string, args ...any) {
		out = append(out, policies.Finding{
			Severity: policies.Warning, Code: CodeDirectory, At: doc.Metadata().At,
			Object: fmt.Sprintf("%s %q", doc.Kind(), doc.Key()), Message: fmt.Sprintf(format, args...),
		})
	}
	container := func(doc policies.Document, dn directory.DN) {
		if _, ok := s.ContainerByDN(dn); !ok {
			find(doc, "container %s is not in the directory", dn)
		}
	}
	for _, c := range d.Containers {
		container(c, c.DN)
	}
	for _, p := range d.Policies {
		for _, r := range p.Rules {
			for _, dn := range r.PeerGroups {
				if _, ok := s.GroupByDN(dn); !ok {
					find(p, "group %s is not in the directory, so rule %q accepts none of its members as peers", dn, r.Name)
				}
			}
		}
	}
	for _, l := range d.Links {
		if !policies.IsSite(l.Container) {
			container(l, l.Container)
		}
		for _, dn := range l.Apply {
			if !limits(s, dn) {
				find(l, "group %s is not in the directory, so the link applies to none of its members", dn)
			}
		}
		for _, dn := range l.Deny {
			if !limits(s, dn) {
				find(l, "group %s is not in the directory, so the link denies none of its members", dn)
			}
		}
	}
	return out
}

// limits says whether a link can be limited to an entry: a group, or a single machine.
func limits(s *directory.Snapshot, dn directory.DN) bool {
	_, group := s.GroupByDN(dn)
	_, machine := s.MachineByDN(dn)
	return group || machine
}
