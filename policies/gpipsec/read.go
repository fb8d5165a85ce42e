package gpipsec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Searcher reads the entries below a base that a filter matches: all of them, or an error.
type Searcher interface {
	Entries(base directory.DN, filter string, attributes []string) ([]directory.Entry, error)
}

// Read asks for everything that Convert has a use for: the policies and Group Policy objects of a domain with their access
// rights and those whom these name, and, of the configuration of its forest unless that is zero, the sites.
func Read(s Searcher, domain, configuration directory.DN) ([]directory.Entry, error) {
	entries, err := s.Entries(domain, SearchFilter(), append(Attributes(), SecurityAttribute))
	if err != nil {
		return nil, err
	}
	if filter, attributes, ok := NamesOf(entries); ok {
		named, err := s.Entries(domain, filter, attributes)
		if err != nil {
			return nil, err
		}
		entries = append(entries, named...)
	}
	if configuration.IsZero() {
		return entries, nil
	}
	sites, err := s.Entries(configuration, SiteFilter(), SiteAttributes())
	if err != nil {
		return nil, err
	}
	return slices.Concat(entries, sites), nil
}

// ReadSites asks for the sites of a forest with their subnets. The error wraps ErrUnknown when there is no site: a forest has
// one at least (MS-ADTS 6.1.1.2.2.1), so that the reader may not see them.
func ReadSites(s Searcher, configuration directory.DN) ([]directory.Entry, error) {
	entries, err := s.Entries(configuration, SiteFilter(), SiteAttributes())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		for _, class := range e.Values("objectClass") {
			if strings.EqualFold(class, "site") {
				return entries, nil
			}
		}
	}
	return nil, fmt.Errorf(`%w: no site can be seen below %q: let the reader see "CN=Sites,%s"`, ErrUnknown, configuration, configuration)
}
