package admin

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// Link implements adminv1.DocumentServiceServer.
func (s *Server) Link(ctx context.Context, r *adminv1.LinkRequest) (*adminv1.LinkResponse, error) {
	link, err := s.linkEdit(r)
	if err != nil {
		return nil, err
	}
	revision, affected, err := s.edit(ctx, link)
	if err != nil {
		return nil, err
	}
	return &adminv1.LinkResponse{Revision: revision, MachinesChanged: affected}, nil
}

// linkEdit makes the change that a link is.
func (s *Server) linkEdit(r *adminv1.LinkRequest) (func(catalogue) (edit, error), error) {
	link, err := s.parseLink(r.GetLink())
	if err != nil {
		return nil, err
	}
	return func(c catalogue) (edit, error) {
		if _, ok := c.docs[store.DocumentKey{Kind: string(policies.KindPolicy), Name: link.Policy}]; !ok {
			return edit{}, status.Errorf(codes.NotFound, "there is no policy %q; look at: bailiwick get policies", link.Policy)
		}
		wanted := link
		last := 0
		for _, present := range c.links() {
			if !present.Container.Equal(link.Container) {
				continue
			}
			last = max(last, present.Order)
			if present.Policy != link.Policy {
				continue
			}
			if !r.GetReplace() {
				return edit{}, status.Errorf(codes.AlreadyExists, "policy %q is linked to %s already, with order %d; use --replace to change that", link.Policy, present.Container, present.Order)
			}
			wanted.Name, wanted.Description = present.Name, present.Description
			if wanted.Order == 0 {
				wanted.Order = present.Order
			}
		}
		if wanted.Order == 0 {
			// A new link is the weakest of its container.
			wanted.Order = last + 1
		}
		return edit{put: []policies.Document{wanted}}, nil
	}, nil
}

func (s *Server) parseLink(l *adminv1.PolicyLink) (policies.Link, error) {
	container, err := s.parseContainer(l.GetContainer())
	if err != nil {
		return policies.Link{}, err
	}
	link := policies.Link{
		Policy: l.GetPolicy(), Container: container, Order: int(l.GetOrder()), Enforced: l.GetEnforced(), Disabled: l.GetDisabled(),
	}
	if link.Apply, err = s.parseGroups(l.GetGroups()); err != nil {
		return policies.Link{}, err
	}
	if link.Deny, err = s.parseGroups(l.GetDeniedGroups()); err != nil {
		return policies.Link{}, err
	}
	return link, nil
}

// parseContainer reads the DN of a container that the directory holds. A document may name one that is still to come; a
// command that does is mistyped.
func (s *Server) parseContainer(text string) (directory.DN, error) {
	dn, err := directory.ParseDN(text)
	if err != nil {
		return directory.DN{}, status.Error(codes.InvalidArgument, err.Error())
	}
	if policies.IsSite(dn) {
		return dn, nil // it is a document, and validated as one
	}
	view := s.config.Mirror.View()
	if view == nil {
		return dn, nil
	}
	c, ok := view.Snapshot.ContainerByDN(dn)
	if !ok {
		return directory.DN{}, status.Errorf(codes.NotFound, "there is no container %q in the directory; look at: bailiwick get tree", text)
	}
	// As the directory spells it.
	return c.DN, nil
}

// parseGroups reads the DNs of groups that the directory holds, for the reason that parseContainer gives: a link to a
// mistyped group would take the policy away from whom it should have, or give it to whom it should not.
func (s *Server) parseGroups(texts []string) ([]directory.DN, error) {
	view := s.config.Mirror.View()
	var dns []directory.DN
	for _, text := range texts {
		dn, err := directory.ParseDN(text)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		if view != nil {
			group, ok := view.Snapshot.GroupByDN(dn)
			if !ok {
				return nil, status.Errorf(codes.NotFound, "there is no group %q in the directory", text)
			}
			dn = group.DN
		}
		dns = append(dns, dn)
	}
	return dns, nil
}

func (c catalogue) links() []policies.Link {
	var links []policies.Link
	for _, d := range c.docs {
		if l, ok := d.(policies.Link); ok {
			links = append(links, l)
		}
	}
	slices.SortFunc(links, compareLinks)
	return links
}

func compareLinks(a, b policies.Link) int {
	return cmp.Or(cmp.Compare(a.Container.Depth(), b.Container.Depth()), a.Container.Compare(b.Container),
		cmp.Compare(a.Order, b.Order), cmp.Compare(a.Key(), b.Key()))
}

// Unlink implements adminv1.DocumentServiceServer.
func (s *Server) Unlink(ctx context.Context, r *adminv1.UnlinkRequest) (*adminv1.UnlinkResponse, error) {
	unlink, err := unlinkEdit(r)
	if err != nil {
		return nil, err
	}
	revision, affected, err := s.edit(ctx, unlink)
	if err != nil {
		return nil, err
	}
	return &adminv1.UnlinkResponse{Revision: revision, MachinesChanged: affected}, nil
}

// unlinkEdit makes the change that the removal of a link is.
func unlinkEdit(r *adminv1.UnlinkRequest) (func(catalogue) (edit, error), error) {
	container, err := directory.ParseDN(r.GetContainer())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return func(c catalogue) (edit, error) {
		var e edit
		for _, l := range c.links() {
			if l.Policy == r.GetPolicy() && l.Container.Equal(container) {
				e.without = append(e.without, keyOf(l))
			}
		}
		if len(e.without) == 0 {
			return edit{}, status.Errorf(codes.NotFound, "policy %q is not linked to %s; look at: bailiwick get links", r.GetPolicy(), container)
		}
		return e, nil
	}, nil
}

// ListLinks implements adminv1.DocumentServiceServer.
func (s *Server) ListLinks(ctx context.Context, _ *adminv1.ListLinksRequest) (*adminv1.ListLinksResponse, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.ListLinksResponse{}
	for _, l := range c.links() {
		response.Links = append(response.Links, describeLink(l))
	}
	return response, nil
}

func describeLink(l policies.Link) *adminv1.PolicyLink {
	out := &adminv1.PolicyLink{
		Policy: l.Policy, Container: l.Container.String(), Order: uint32(max(l.Order, 0)), Enforced: l.Enforced, Disabled: l.Disabled, Document: l.Key(),
		Description: l.Description,
	}
	for _, dn := range l.Apply {
		out.Groups = append(out.Groups, dn.String())
	}
	for _, dn := range l.Deny {
		out.DeniedGroups = append(out.DeniedGroups, dn.String())
	}
	return out
}

// ListPolicies implements adminv1.DocumentServiceServer.
func (s *Server) ListPolicies(ctx context.Context, _ *adminv1.ListPoliciesRequest) (*adminv1.ListPoliciesResponse, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	machines := map[string]uint32{}
	table := s.config.Resolver.Table()
	if table != nil {
		for a := range table.All() {
			if a.Container != "" {
				machines[a.Policy]++
			}
		}
	}
	response := &adminv1.ListPoliciesResponse{}
	links := c.links()
	for _, d := range c.stored.List {
		p, ok := c.docs[d.DocumentKey].(policies.Policy)
		if !ok {
			continue
		}
		out := &adminv1.Policy{Name: p.Name, Description: p.Description, Rules: uint32(len(p.Rules)), Machines: machines[p.Name]}
		if table != nil {
			if digest, ok := table.Digest(p.Name); ok {
				out.Digest = digest.String()
			}
		}
		for _, l := range links {
			if l.Policy == p.Name {
				out.Links = append(out.Links, describeLink(l))
			}
		}
		response.Policies = append(response.Policies, out)
	}
	return response, nil
}
