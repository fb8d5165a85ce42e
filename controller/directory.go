package controller

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
)

func (v validated) openDirectory() (directory.Source, error) {
	if v.Directory.LDIF != nil {
		return ldif.Open(v.Directory.LDIF.Path, ldif.Options{Base: v.ldifBase})
	}
	return ldap.Open(v.ldap)
}

// trustDomain returns the fleet's name: the one that it was made with. The first time it is the configured one, or what
// the directory's base spells, and is remembered: certificates in the field carry it.
func (v validated) trustDomain(ctx context.Context, s *store.Store) (string, error) {
	known, err := s.TrustDomain(ctx)
	switch {
	case err == nil && v.TrustDomain != "" && v.TrustDomain != known:
		return "", fmt.Errorf("%w: %q is configured, but the certificates of this fleet carry %q: correct trustDomain, or start another fleet in another stateDir",
			ErrTrustDomain, v.TrustDomain, known)
	case err == nil:
		return known, nil
	case !errors.Is(err, store.ErrNotFound):
		return "", err
	}
	domain := v.TrustDomain
	if domain == "" {
		if domain, err = v.directoryDomain(); err != nil {
			return "", err
		}
	}
	return domain, s.SetTrustDomain(ctx, domain)
}

func (v validated) directoryDomain() (string, error) {
	base := v.ldap.Base
	if l := v.Directory.LDIF; l != nil {
		base = v.ldifBase
		if base.IsZero() {
			text, err := os.ReadFile(l.Path)
			if err != nil {
				return "", fmt.Errorf("%w: it is taken from the directory's base, but the directory cannot be read: %w", ErrTrustDomain, err)
			}
			snapshot, err := ldif.Snapshot(l.Path, text, ldif.Options{})
			if err != nil {
				return "", fmt.Errorf("%w: it is taken from the directory's base, but the directory cannot be read: %w", ErrTrustDomain, err)
			}
			base = snapshot.Base()
		}
	}
	if domain := base.Domain(); domain != "" {
		return domain, nil
	}
	return "", fmt.Errorf("%w: the directory's base %q has no DC components to take it from: set trustDomain (--trust-domain)", ErrTrustDomain, base)
}
