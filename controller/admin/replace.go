package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// describeGroupPolicy returns nil when nothing of Group Policy is read beside the source.
func (s *Server) describeGroupPolicy(source string) *adminv1.GroupPolicy {
	if s.config.GroupPolicy == nil {
		return nil
	}
	for _, st := range s.config.GroupPolicy() {
		if st.Source == source {
			return &adminv1.GroupPolicy{
				Assignment: st.Assignment, LastRead: stamp(st.LastRead), Policies: uint32(st.Policies), Links: uint32(st.Links), Sites: uint32(st.Sites),
				Notes: st.Notes, LastError: st.LastError, LastErrorAt: stamp(st.LastErrorAt),
			}
		}
	}
	return nil
}

// Replace makes documents all that an owner has: those that it wrote before and that are not among them are deleted. What
// somebody else wrote stays, also under the name of one of them, unless that is a source that comes later in the
// configuration. Like the directory, and unlike an administrator, an owner is not held up by policy tests; documents that
// would not be valid together with all others change nothing. What gives many machines another policy waits for the guard of
// the source, unless the owner had nothing before; the error then wraps grouppolicy.ErrHeld.
func (s *Server) Replace(ctx context.Context, owner string, docs policies.Documents) (grouppolicy.Written, error) {
	for range attempts {
		out, err := s.replace(ctx, owner, docs)
		if !errors.Is(err, store.ErrConflict) {
			return out, err
		}
	}
	return grouppolicy.Written{}, fmt.Errorf("%w: others keep changing the documents", store.ErrConflict)
}

func (s *Server) replace(ctx context.Context, owner string, docs policies.Documents) (grouppolicy.Written, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return grouppolicy.Written{}, err
	}
	var sources []grouppolicy.Status
	if s.config.GroupPolicy != nil {
		sources = s.config.GroupPolicy()
	}
	out, put, change := replacement(c.stored, owner, docs, sources)
	change.At = s.config.Now()
	out.Changed = len(change.Put) + len(change.Delete)
	source := grouppolicy.Source(owner)
	if out.Changed == 0 {
		_, _, err := s.config.Mirror.Reassign(ctx, source, nil)
		return out, err
	}
	next := c.with(put, change.Delete...)
	if err := policies.Check(policies.Validate(next)); err != nil {
		return grouppolicy.Written{}, err
	}
	var held guard.Held
	if slices.ContainsFunc(c.stored.List, func(d store.Document) bool { return d.By == owner }) {
		if held, err = s.weigh(ctx, source, next); err != nil {
			return grouppolicy.Written{}, err
		}
	}
	s.config.Log.Info("documents of an owner are replaced", "by", owner, "documents", out.Changed, "machines", held.Affected())
	if _, err := s.change(ctx, c, change); err != nil {
		return grouppolicy.Written{}, err
	}
	return out, s.config.Mirror.Apply(ctx, source, held)
}

// weigh asks the guard of a source about documents that would be. The error wraps grouppolicy.ErrHeld when they must wait,
// and is resolver.ErrNotReady while nobody knows what the machines have.
func (s *Server) weigh(ctx context.Context, source string, next policies.Documents) (guard.Held, error) {
	reassigned, err := s.config.Resolver.Reassigned(next)
	if err != nil {
		return guard.Held{}, err
	}
	all := make([]guard.Reassigned, len(reassigned))
	for i, r := range reassigned {
		all[i] = guard.Reassigned{Machine: r.Machine, From: r.Before.Policy, To: r.After.Policy, Content: r.After.Digest.String()}
	}
	held, pass, err := s.config.Mirror.Reassign(ctx, source, all)
	if err == nil && !pass {
		err = fmt.Errorf("%w as %s: %s; look at: bailiwick directory held", grouppolicy.ErrHeld, held.ID, held.Reason())
	}
	return held, err
}

// replacement finds out what makes documents all that an owner has, of those that are stored.
func replacement(stored store.Documents, owner string, docs policies.Documents, sources []grouppolicy.Status) (out grouppolicy.Written, put []policies.Document, change store.DocumentChange) {
	change.By = owner
	wanted := map[store.DocumentKey]bool{}
	for _, d := range docs.All() {
		key := keyOf(d)
		wanted[key] = true
		old, exists := stored.Get(key)
		if exists && old.By != owner && !outranks(sources, owner, old.By) {
			out.Kept = append(out.Kept, object(d))
			continue
		}
		if text := policies.AppendYAML(nil, d); !exists || old.By != owner || !bytes.Equal(old.Content, text) {
			put = append(put, d)
			change.Put = append(change.Put, store.Document{DocumentKey: key, Content: text})
		}
	}
	for _, d := range stored.List {
		if d.By == owner && !wanted[d.DocumentKey] {
			change.Delete = append(change.Delete, d.DocumentKey)
		}
	}
	return out, put, change
}

// outranks says whether an owner is a source that comes before another one: in the order of the configuration, and not in
// that of who wrote first. No source outranks people.
func outranks(sources []grouppolicy.Status, owner, other string) bool {
	place := func(name string) int {
		return slices.IndexFunc(sources, func(s grouppolicy.Status) bool { return grouppolicy.Owner(s.Source) == name })
	}
	return place(owner) >= 0 && place(owner) < place(other)
}
