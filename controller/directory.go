package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
	"github.com/bailiwick-net/bailiwick/directory/settings"
)

// openDirectories opens the mirror of every source. A source of before that the configuration no longer names stops it:
// without that, a mistake in a file would cut off all its machines.
func (c *Controller) openDirectories(ctx context.Context, changed func()) (*mirror.Union, error) {
	v, s := c.config, c.state.store
	if err := v.retire(ctx, s, c.log); err != nil {
		return nil, err
	}
	var members []mirror.Member
	closeAll := func(err error) error {
		for _, m := range members {
			err = errors.Join(err, m.Mirror.Close())
		}
		return err
	}
	for _, d := range v.directories.Sources {
		source, err := d.Open()
		if err != nil {
			return nil, closeAll(fmt.Errorf("%w: directory %q: %w", ErrConfig, d.Name, err))
		}
		log := v.Log.Named("directory")
		if len(v.directories.Sources) > 1 {
			log = log.With("source", d.Name)
		}
		m, err := mirror.NewMember(ctx, d.Name, mirror.Config{
			Source: source, Store: s.Directory(d.Name), Limits: d.Limits, Containers: d.Containers, Grace: d.Grace, Now: v.Now, Log: log, Tell: c.events.of(d.Name),
		})
		if err != nil {
			return nil, closeAll(errors.Join(err, source.Close()))
		}
		members = append(members, m)
	}
	union, err := mirror.NewUnion(members, changed, v.Log.Named("directory"))
	if err != nil {
		return nil, closeAll(err)
	}
	return union, nil
}

// retire forgets the sources that are said to be removed, and refuses when others are missing.
func (v validated) retire(ctx context.Context, s *store.Store, log hclog.Logger) error {
	known, err := s.Directories(ctx)
	if err != nil {
		return err
	}
	for _, name := range known {
		switch {
		case slices.ContainsFunc(v.directories.Sources, func(d settings.CheckedSource) bool { return d.Name == name }):
		case slices.Contains(v.directories.Removed, name):
			if err := s.Directory(name).Forget(ctx); err != nil {
				return err
			}
			log.Warn("directory source was removed, its machines are no longer known", "source", name)
		default:
			return fmt.Errorf("%w: the directory source %q is no longer configured, and all its machines would be cut off: name it again in directory.sources"+
				" (what was the only directory is called %q), or say that it is gone for good with directory.removed: [%s]", ErrConfig, name, settings.DefaultName, name)
		}
	}
	return nil
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
	first := v.directories.Sources[0]
	base := first.Base
	if first.Path != "" && base.IsZero() {
		text, err := os.ReadFile(first.Path)
		if err != nil {
			return "", fmt.Errorf("%w: it is taken from the directory's base, but the directory cannot be read: %w", ErrTrustDomain, err)
		}
		snapshot, err := ldif.Snapshot(first.Path, text, ldif.Options{})
		if err != nil {
			return "", fmt.Errorf("%w: it is taken from the directory's base, but the directory cannot be read: %w", ErrTrustDomain, err)
		}
		base = snapshot.Base()
	}
	if domain := base.Domain(); domain != "" {
		return domain, nil
	}
	return "", fmt.Errorf("%w: the directory's base %q has no DC components to take it from: set trustDomain (--trust-domain)", ErrTrustDomain, base)
}
