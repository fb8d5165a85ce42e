package ldap

import (
	"context"
	"fmt"
	"slices"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Reader reads entries that are no part of the tree, over one connection. It is used by one goroutine.
type Reader struct {
	session *session
	close   func()
}

// OpenReader connects as c says. The connection closes when ctx ends.
func OpenReader(ctx context.Context, c Config) (*Reader, error) {
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	s, done, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	return &Reader{s, done}, nil
}

// Close ends the connection.
func (r *Reader) Close() { r.close() }

// Contexts returns the names of the server's own domain and of the configuration that its forest shares (MS-ADTS 3.1.1.3.2).
func (r *Reader) Contexts() (domain, configuration directory.DN, err error) {
	root, err := r.session.rootDSE("defaultNamingContext", "configurationNamingContext")
	if err != nil {
		return directory.DN{}, directory.DN{}, err
	}
	for name, into := range map[string]*directory.DN{"defaultNamingContext": &domain, "configurationNamingContext": &configuration} {
		if *into, err = directory.ParseDN(root.GetEqualFoldAttributeValue(name)); err != nil || into.IsZero() {
			return directory.DN{}, directory.DN{}, r.session.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("the server does not tell its %s: it is no Active Directory", name))
		}
	}
	return domain, configuration, nil
}

// Entries reads the entries below a base that a filter (RFC 4515) matches, with some of their attributes, in one pass. All
// of them come back, or an error. Of a security descriptor that is asked for, the list of access rights alone is read.
func (r *Reader) Entries(base directory.DN, filter string, attributes []string) ([]directory.Entry, error) {
	var controls []goldap.Control
	for _, a := range attributes {
		if a == "nTSecurityDescriptor" {
			controls = []goldap.Control{accessControlOnly()}
		}
	}
	var entries []directory.Entry
	err := r.session.pagesOf(base.String(), filter, func(e directory.Entry) error {
		// The slices are the reader's own, for the next entry.
		e.Attributes = slices.Clone(e.Attributes)
		for i := range e.Attributes {
			e.Attributes[i].Values = slices.Clone(e.Attributes[i].Values)
		}
		entries = append(entries, e)
		return nil
	}, attributes, controls...)
	if err != nil {
		return nil, err
	}
	return entries, nil
}
