package admin

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// Rename implements adminv1.DocumentServiceServer.
func (s *Server) Rename(ctx context.Context, r *adminv1.RenameRequest) (*adminv1.RenameResponse, error) {
	for range attempts {
		c, err := s.catalogue(ctx)
		if err != nil {
			return nil, refuse(err)
		}
		in, err := c.rename(r)
		if err != nil {
			return nil, err
		}
		response, err := s.applyTo(ctx, c, in, r.GetDryRun())
		if !errors.Is(err, store.ErrConflict) {
			if err != nil {
				return nil, refuse(err)
			}
			return &adminv1.RenameResponse{Applied: response}, nil
		}
	}
	return nil, status.Error(codes.Aborted, "others keep changing the documents; try again")
}

// rename reads a request and makes the change that it is about.
func (c catalogue) rename(r *adminv1.RenameRequest) (intent, error) {
	kind, err := parseKind(r.GetKind())
	if err != nil {
		return intent{}, err
	}
	if !kind.Renames() {
		return intent{}, status.Errorf(codes.InvalidArgument, "documents of kind %s have no names", kind)
	}
	if r.GetName() == r.GetNewName() {
		return intent{}, status.Errorf(codes.InvalidArgument, "%s %q has that name already", kind, r.GetName())
	}
	return c.renamed(kind, r.GetName(), r.GetNewName())
}

// renamed is the change that gives a document another name.
func (c catalogue) renamed(kind policies.Kind, from, to string) (intent, error) {
	if _, ok := c.docs[store.DocumentKey{Kind: string(kind), Name: from}]; !ok {
		return intent{}, status.Errorf(codes.NotFound, "there is no %s %q", kind, from)
	}
	if _, taken := c.docs[store.DocumentKey{Kind: string(kind), Name: to}]; taken {
		return intent{}, status.Errorf(codes.AlreadyExists, "there is a %s %q already", kind, to)
	}
	var in intent
	for _, d := range c.stored.List {
		text, changed, err := policies.Rename(d.Content, kind, from, to)
		if err != nil {
			return intent{}, status.Errorf(codes.FailedPrecondition, "%s: %v", object(c.docs[d.DocumentKey]), err)
		}
		if !changed {
			continue
		}
		decoded, err := policies.Decode(d.String(), text)
		if all := decoded.All(); err == nil && len(all) == 1 {
			in.put = append(in.put, written{all[0], text})
			if keyOf(all[0]) != d.DocumentKey { // a link without a name is called by its policy
				in.without = append(in.without, d.DocumentKey)
			}
			continue
		}
		return intent{}, fmt.Errorf("%v renamed reads as %d documents: %w: %w", d.DocumentKey, len(decoded.All()), store.ErrCorrupt, err)
	}
	return in, nil
}
