package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// attempts bounds how often a change is tried anew because somebody else changed documents in the meantime.
const attempts = 5

// catalogue is the stored documents with what they say.
type catalogue struct {
	stored store.Documents
	docs   map[store.DocumentKey]policies.Document
}

func (s *Server) catalogue(ctx context.Context) (catalogue, error) {
	stored, err := s.config.Store.Documents(ctx)
	if err != nil {
		return catalogue{}, err
	}
	c := catalogue{stored, make(map[store.DocumentKey]policies.Document, len(stored.List))}
	for _, d := range stored.List {
		decoded, err := policies.Decode(d.String(), d.Content)
		if err != nil {
			return catalogue{}, fmt.Errorf("stored document %v: %w: %w", d.DocumentKey, store.ErrCorrupt, err)
		}
		all := decoded.All()
		if len(all) != 1 {
			return catalogue{}, fmt.Errorf("stored document %v holds %d documents: %w", d.DocumentKey, len(all), store.ErrCorrupt)
		}
		c.docs[d.DocumentKey] = all[0]
	}
	return c, nil
}

// present reads the documents, and the directory as it was read last; resolver.ErrNotReady before it was read.
func (s *Server) present(ctx context.Context) (catalogue, *mirror.View, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return catalogue{}, nil, err
	}
	view := s.config.Mirror.View()
	if view == nil {
		return catalogue{}, nil, resolver.ErrNotReady
	}
	return c, view, nil
}

// with returns all documents as they would be after a change.
func (c catalogue) with(put []policies.Document, without ...store.DocumentKey) policies.Documents {
	replaced := map[store.DocumentKey]bool{}
	for _, d := range put {
		replaced[keyOf(d)] = true
	}
	for _, k := range without {
		replaced[k] = true
	}
	var out policies.Documents
	for _, d := range c.stored.List {
		if !replaced[d.DocumentKey] {
			out.Add(c.docs[d.DocumentKey])
		}
	}
	for _, d := range put {
		out.Add(d)
	}
	return out
}

func keyOf(d policies.Document) store.DocumentKey {
	return store.DocumentKey{Kind: string(d.Kind()), Name: d.Key()}
}

// written is one document with its text.
type written struct {
	doc  policies.Document
	text []byte
}

// Apply implements adminv1.DocumentServiceServer.
func (s *Server) Apply(ctx context.Context, r *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	in, err := decodeIntent(r.GetSources(), r.GetDelete())
	if err != nil {
		return nil, err
	}
	for range attempts {
		response, err := s.apply(ctx, in, r.GetDryRun())
		if !errors.Is(err, store.ErrConflict) {
			if err != nil {
				return nil, refuse(err)
			}
			return response, nil
		}
	}
	return nil, status.Error(codes.Aborted, "others keep changing the documents; try again")
}

func decodeSources(sources []*adminv1.Source) ([]written, error) {
	var put []written
	var problems []*adminv1.Problem
	for _, source := range sources {
		decoded, err := policies.Decode(source.GetName(), source.GetContent())
		if err != nil {
			var wrong *policies.DecodeError
			if !errors.As(err, &wrong) {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			for _, p := range wrong.Problems {
				problems = append(problems, &adminv1.Problem{
					Source: p.At.File, Line: uint32(max(p.At.Line, 0)), Column: uint32(max(p.At.Column, 0)), Message: p.Message, Excerpt: p.Excerpt,
				})
			}
			continue
		}
		docs := decoded.All()
		for i, text := range split(source.GetContent(), docs) {
			alone, err := policies.Decode(source.GetName(), text)
			if all := alone.All(); err != nil || len(all) != 1 || keyOf(all[0]) != keyOf(docs[i]) {
				// Anchors across documents and the like: what cannot stand alone is kept as this program would write it.
				text = policies.AppendYAML(nil, docs[i])
			}
			put = append(put, written{docs[i], text})
		}
	}
	if len(problems) > 0 {
		return nil, refused(codes.InvalidArgument, "nothing was applied: the documents cannot be read", problems)
	}
	return put, nil
}

// refused makes a status with everything that is wrong.
func refused(code codes.Code, message string, problems []*adminv1.Problem) error {
	st, err := status.New(code, message).WithDetails(&adminv1.Problems{Problems: problems})
	if err != nil {
		return status.Error(code, message)
	}
	return st.Err()
}

// apply is one attempt. Its error wraps store.ErrConflict when somebody else was faster.
func (s *Server) apply(ctx context.Context, in intent, dryRun bool) (*adminv1.ApplyResponse, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	return s.applyTo(ctx, c, in, dryRun)
}

// applyTo applies to documents that were read; only if they still are as they were read then.
func (s *Server) applyTo(ctx context.Context, c catalogue, in intent, dryRun bool) (*adminv1.ApplyResponse, error) {
	next, err := in.over(c)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ApplyResponse{Revision: c.stored.Revision}
	if response.Warnings, err = s.validate(next, in.documents()); err != nil {
		return nil, err
	}
	if err := s.blocked(c.with(nil), next); err != nil {
		return nil, err
	}
	if err := s.test(next); err != nil {
		return nil, err
	}
	change, changes := in.change(c)
	change.By, change.At = actor(ctx).Name, s.config.Now()
	response.Changes, response.MachinesChanged = changes, s.affected(next)
	if dryRun || len(change.Put)+len(change.Delete) == 0 {
		return response, nil
	}
	if response.Revision, err = s.change(ctx, c, change); err != nil {
		return nil, err
	}
	return response, nil
}

// change writes, and waits for the assignments to follow.
func (s *Server) change(ctx context.Context, c catalogue, change store.DocumentChange) (int64, error) {
	revision, err := s.config.Store.ChangeDocuments(ctx, c.stored.Revision, change)
	if err != nil {
		return 0, err
	}
	for _, d := range change.Put {
		s.config.Log.Info("document written", "document", d.DocumentKey, "by", change.By, "revision", revision)
	}
	for _, k := range change.Delete {
		s.config.Log.Info("document deleted", "document", k, "by", change.By, "revision", revision)
	}
	s.settled(ctx, revision)
	return revision, nil
}

// affected counts the machines whose policy the documents would change; 0 while there are no assignments.
func (s *Server) affected(docs policies.Documents) uint32 {
	changed, err := s.config.Resolver.Preview(docs)
	if err != nil {
		return 0
	}
	return uint32(len(changed))
}

// validate looks at all documents together. Errors refuse; warnings count where they are about the documents given.
func (s *Server) validate(all policies.Documents, given []policies.Document) ([]*adminv1.Problem, error) {
	findings := policies.Validate(all)
	if view := s.config.Mirror.View(); view != nil {
		findings = append(findings, resolve.Check(view.Snapshot, all)...)
	}
	findings = append(findings, s.unkeptSecrets(all)...)
	mine := map[string]bool{}
	for _, d := range given {
		mine[object(d)] = true
	}
	var errs, warnings []*adminv1.Problem
	for _, f := range findings {
		p := &adminv1.Problem{
			Source: f.At.File, Line: uint32(max(f.At.Line, 0)), Column: uint32(max(f.At.Column, 0)), Document: f.Object, Message: f.Message,
		}
		switch {
		case f.Severity == policies.Error:
			errs = append(errs, p)
		case mine[f.Object]:
			warnings = append(warnings, p)
		}
	}
	if len(errs) > 0 {
		return nil, refused(codes.FailedPrecondition, "nothing was changed: the documents together would not be valid", errs)
	}
	return warnings, nil
}

// object names a document as findings do.
func object(d policies.Document) string { return fmt.Sprintf("%s %q", d.Kind(), d.Key()) }

// parseKind reads a kind in any case.
func parseKind(text string) (policies.Kind, error) {
	var names []string
	for _, k := range policies.Kinds() {
		if strings.EqualFold(string(k), text) {
			return k, nil
		}
		names = append(names, string(k))
	}
	return "", status.Errorf(codes.InvalidArgument, "kind %q, wanted one of %s", text, strings.Join(names, ", "))
}

// Delete implements adminv1.DocumentServiceServer.
func (s *Server) Delete(ctx context.Context, r *adminv1.DeleteRequest) (*adminv1.DeleteResponse, error) {
	in, err := decodeIntent(nil, []*adminv1.DocumentName{{Kind: r.GetKind(), Name: r.GetName()}})
	if err != nil {
		return nil, err
	}
	revision, _, err := s.edit(ctx, func(c catalogue) (edit, error) {
		_, err := in.over(c)
		return edit{without: in.without}, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteResponse{Revision: revision}, nil
}

// edit is a change made by the controller for an administrator.
type edit struct {
	put     []policies.Document
	without []store.DocumentKey
}

// edit makes a change of documents that depends on what they are, trying anew when somebody else was faster. It returns
// the revision and the number of machines whose policy changes.
func (s *Server) edit(ctx context.Context, make func(catalogue) (edit, error)) (int64, uint32, error) {
	for range attempts {
		c, err := s.catalogue(ctx)
		if err != nil {
			return 0, 0, refuse(err)
		}
		e, err := make(c)
		if err != nil {
			return 0, 0, err
		}
		next := c.with(e.put, e.without...)
		if _, err := s.validate(next, e.put); err != nil {
			return 0, 0, err
		}
		if err := s.blocked(c.with(nil), next); err != nil {
			return 0, 0, err
		}
		if err := s.test(next); err != nil {
			return 0, 0, err
		}
		affected := s.affected(next)
		change := store.DocumentChange{Delete: e.without, By: actor(ctx).Name, At: s.config.Now()}
		for _, d := range e.put {
			change.Put = append(change.Put, store.Document{DocumentKey: keyOf(d), Content: policies.AppendYAML(nil, d)})
		}
		revision, err := s.change(ctx, c, change)
		if !errors.Is(err, store.ErrConflict) {
			if err != nil {
				return 0, 0, refuse(err)
			}
			return revision, affected, nil
		}
	}
	return 0, 0, status.Error(codes.Aborted, "others keep changing the documents; try again")
}

// descriptionOf reads the comment of a document. One that this version cannot read is listed all the same, without it.
func descriptionOf(d store.Document) string {
	decoded, err := policies.Decode(d.String(), d.Content)
	if all := decoded.All(); err == nil && len(all) == 1 {
		return all[0].Metadata().Description
	}
	return ""
}

// ListDocuments implements adminv1.DocumentServiceServer.
func (s *Server) ListDocuments(ctx context.Context, r *adminv1.ListDocumentsRequest) (*adminv1.ListDocumentsResponse, error) {
	kind := policies.Kind("")
	if r.GetKind() != "" {
		var err error
		if kind, err = parseKind(r.GetKind()); err != nil {
			return nil, err
		}
	}
	stored, err := s.config.Store.Documents(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.ListDocumentsResponse{Revision: stored.Revision}
	for _, d := range stored.List {
		if kind != "" && d.Kind != string(kind) || r.GetName() != "" && d.Name != r.GetName() {
			continue
		}
		response.Documents = append(response.Documents, &adminv1.Document{
			Kind: d.Kind, Name: d.Name, Content: string(d.Content), Revision: d.Revision, Changed: stamp(d.Changed), ChangedBy: d.By,
			Description: descriptionOf(d),
		})
	}
	// By kind in the order in which a file of all of them reads best.
	rank := map[string]int{}
	for i, k := range policies.Kinds() {
		rank[string(k)] = i
	}
	slices.SortStableFunc(response.Documents, func(a, b *adminv1.Document) int {
		return cmp.Or(cmp.Compare(rank[a.GetKind()], rank[b.GetKind()]), cmp.Compare(a.GetName(), b.GetName()))
	})
	return response, nil
}
