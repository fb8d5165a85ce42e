package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/plan"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

const (
	// maxPlans is how many plans are kept; the oldest goes first.
	maxPlans = 32
	// planLife is for how long a plan is kept.
	planLife = time.Hour
)

// keptPlan is a plan with what it was made from.
type keptPlan struct {
	id       plan.ID
	until    time.Time
	revision int64
	contents map[store.DocumentKey][sha256.Size]byte
	snapshot *directory.Snapshot
	in       intent
	result   [sha256.Size]byte
	machines int
}

// plans keeps plans until they are applied. They do not outlive the controller: who plans anew loses nothing.
type plans struct {
	mu   sync.Mutex
	list []keptPlan // the oldest first
}

func (p *plans) keep(k keptPlan, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(old keptPlan) bool { return old.id == k.id || !now.Before(old.until) })
	p.list = append(p.list, k)
	if n := len(p.list) - maxPlans; n > 0 {
		p.list = slices.Delete(p.list, 0, n)
	}
}

func (p *plans) get(id plan.ID, now time.Time) (keptPlan, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.list {
		if k.id == id && now.Before(k.until) {
			return k, true
		}
	}
	return keptPlan{}, false
}

func (p *plans) drop(id plan.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(k keptPlan) bool { return k.id == id })
}

// Plan implements adminv1.PlanServiceServer.
func (s *Server) Plan(ctx context.Context, r *adminv1.PlanRequest) (*adminv1.PlanResponse, error) {
	c, view, err := s.present(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	switch r.GetChange().(type) {
	case *adminv1.PlanRequest_Move, *adminv1.PlanRequest_Held:
		return s.planDirectory(ctx, c, view, r)
	case nil:
		return nil, status.Error(codes.InvalidArgument, "what is to be planned? name documents, a link or a move")
	}
	in, err := s.intentOf(c, r)
	if err != nil {
		return nil, err
	}
	return s.planDocuments(c, view, in, r.GetDetails())
}

// intentOf reads the change of documents that a request is about.
func (s *Server) intentOf(c catalogue, r *adminv1.PlanRequest) (intent, error) {
	if d := r.GetDocuments(); d != nil {
		return decodeIntent(d.GetSources(), d.GetDelete())
	}
	if n := r.GetRename(); n != nil {
		return c.rename(n)
	}
	var change func(catalogue) (edit, error)
	var err error
	if l := r.GetLink(); l != nil {
		change, err = s.linkEdit(l)
	} else {
		change, err = unlinkEdit(r.GetUnlink())
	}
	if err != nil {
		return intent{}, err
	}
	e, err := change(c)
	return intentOf(e), err
}

func (s *Server) planDocuments(c catalogue, view *mirror.View, in intent, details bool) (*adminv1.PlanResponse, error) {
	p, response, err := s.foresee(c, view, in, details)
	if err != nil {
		return nil, err
	}
	change, changes := in.change(c)
	response.Documents = changes
	if len(change.Put)+len(change.Delete) == 0 || len(p.FailedTests()) > 0 || len(response.GetBlocked()) > 0 {
		return response, nil // nothing that could be applied
	}
	now := s.config.Now()
	kept := keptPlan{
		until: now.Add(planLife), revision: c.stored.Revision, contents: c.digests(), snapshot: view.Snapshot, in: in,
		result: p.Digest(), machines: p.ChangedMachines(),
	}
	kept.id = p.Identify(c.digest(), [sha256.Size]byte(view.Snapshot.Digest()), in.digest())
	s.plans.keep(kept, now)
	response.Id, response.Until = kept.id.String(), stamp(kept.until)
	return response, nil
}

// foresee works a plan out. What the documents cannot be is refused, as it would be if they were applied.
func (s *Server) foresee(c catalogue, view *mirror.View, in intent, details bool) (plan.Plan, *adminv1.PlanResponse, error) {
	next, err := in.over(c)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	warnings, err := s.validate(next, in.documents())
	if err != nil {
		return plan.Plan{}, nil, err
	}
	p, err := plan.Compare(s.world(c.with(nil), view.Snapshot), s.world(next, view.Snapshot), s.config.Services)
	if err != nil {
		return plan.Plan{}, nil, refuse(err)
	}
	response := describePlan(p, details)
	response.Assumptions = s.assumptions(p, next)
	_, machines, _ := view.Snapshot.Len()
	response.Machines, response.Warnings, response.Blocked = uint32(machines), warnings, s.blocking(c.with(nil), next)
	return p, response, nil
}

// planDirectory plans what somebody else would do to the directory.
func (s *Server) planDirectory(ctx context.Context, c catalogue, view *mirror.View, r *adminv1.PlanRequest) (*adminv1.PlanResponse, error) {
	var next *directory.Snapshot
	reason := ""
	if m := r.GetMove(); m != nil {
		dn, err := s.parseEntry(view, m.GetDn())
		if err != nil {
			return nil, err
		}
		to, err := s.parseContainer(m.GetTo())
		if err != nil {
			return nil, err
		}
		var held guard.Held
		var pass bool
		if next, held, pass, err = s.config.Mirror.Move(ctx, dn, to); err != nil {
			return nil, refuse(err)
		}
		if !pass {
			reason = held.Reason()
		}
	} else {
		held, after, err := s.config.Mirror.Held("")
		if err != nil {
			return nil, refuse(err)
		}
		if held == nil {
			return nil, status.Error(codes.NotFound, "no change of the directory is held; look at: bailiwick directory status")
		}
		next, reason = after, held.Reason()
	}
	docs := c.with(nil)
	p, err := plan.Compare(s.world(docs, view.Snapshot), s.world(docs, next), s.config.Services)
	if err != nil {
		return nil, refuse(err)
	}
	response := describePlan(p, r.GetDetails())
	response.Assumptions = s.assumptions(p, docs)
	_, machines, _ := next.Len()
	response.Machines, response.Held = uint32(machines), reason
	response.Directory = directory.NewDiff(view.Snapshot, next).String()
	return response, nil
}

// world is what documents and a directory come to with the nodes where they are.
func (s *Server) world(docs policies.Documents, snapshot *directory.Snapshot) plan.World {
	return plan.World{Documents: docs, Directory: snapshot, Locations: s.config.Resolver.Locations()}
}

// parseEntry finds the entry of the directory that is meant: a machine by any of its names, or any entry by its DN.
func (s *Server) parseEntry(view *mirror.View, text string) (directory.DN, error) {
	if strings.Contains(text, "=") {
		dn, err := directory.ParseDN(text)
		if err != nil {
			return directory.DN{}, status.Error(codes.InvalidArgument, err.Error())
		}
		return dn, nil
	}
	m, err := find(view, text)
	return m.DN, err
}

// ApplyPlan implements adminv1.PlanServiceServer.
func (s *Server) ApplyPlan(ctx context.Context, r *adminv1.ApplyPlanRequest) (*adminv1.ApplyPlanResponse, error) {
	id, err := plan.ParseID(r.GetId())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	kept, ok := s.plans.get(id, s.config.Now())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no plan %s: it was applied, is older than %v, or the controller was started since; plan again", id, planLife)
	}
	// A conflict means that documents were changed while the plan was being compared; then the next attempt says which.
	for range attempts {
		response, err := s.applyPlan(ctx, kept)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, refuse(err)
		}
		s.plans.drop(id)
		s.config.Log.Info("plan applied", "plan", id, "by", actor(ctx).Name, "change", kept.in.String(), "revision", response.GetRevision())
		return &adminv1.ApplyPlanResponse{Applied: response}, nil
	}
	return nil, status.Error(codes.Aborted, "others keep changing the documents; plan again")
}

func (s *Server) applyPlan(ctx context.Context, kept keptPlan) (*adminv1.ApplyResponse, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	if c.stored.Revision != kept.revision {
		return nil, status.Errorf(codes.FailedPrecondition, "nothing was changed: since the plan was made, documents were changed: %s; plan again",
			listed(movedDocuments(kept.contents, c)))
	}
	view := s.config.Mirror.View()
	if view == nil {
		return nil, resolver.ErrNotReady
	}
	p, _, err := s.foresee(c, view, kept.in, false)
	if err != nil {
		return nil, err
	}
	if p.Digest() != kept.result {
		moved := "nodes connected from other places"
		if diff := directory.NewDiff(kept.snapshot, view.Snapshot); !diff.Empty() {
			moved = fmt.Sprintf("the directory changed: %v: %s", diff, listed(movedEntries(diff)))
		}
		return nil, status.Errorf(codes.FailedPrecondition,
			"nothing was changed: since the plan was made, %s; it would do something else now: the policies of %d machines would change instead of %d; plan again",
			moved, p.ChangedMachines(), kept.machines)
	}
	return s.applyTo(ctx, c, kept.in, false)
}

// maxListed bounds what an error lists.
const maxListed = 10

func listed(all []string) string {
	if n := len(all) - maxListed; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxListed], ", "), n)
	}
	return strings.Join(all, ", ")
}

// movedDocuments names the documents that are not what they were.
func movedDocuments(was map[store.DocumentKey][sha256.Size]byte, c catalogue) []string {
	var out []string
	for _, d := range c.stored.List {
		switch old, known := was[d.DocumentKey]; {
		case !known:
			out = append(out, fmt.Sprintf("%s %q is new (by %s)", d.Kind, d.Name, cmp.Or(d.By, "nobody")))
		case old != sha256.Sum256(d.Content):
			out = append(out, fmt.Sprintf("%s %q is another (by %s)", d.Kind, d.Name, cmp.Or(d.By, "nobody")))
		}
	}
	for key := range was {
		if _, still := c.stored.Get(key); !still {
			out = append(out, fmt.Sprintf("%s %q is gone", key.Kind, key.Name))
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		out = append(out, "to and fro")
	}
	return out
}

func movedEntries(d directory.Diff) []string {
	var out []string
	for _, m := range d.Added {
		out = append(out, m.Name+": added")
	}
	for _, m := range d.Removed {
		out = append(out, m.Name+": removed")
	}
	for _, m := range d.Changed {
		out = append(out, m.String())
	}
	for _, c := range d.ContainersAdded {
		out = append(out, c.DN.String()+": added")
	}
	for _, c := range d.ContainersRemoved {
		out = append(out, c.DN.String()+": removed")
	}
	for _, c := range d.ContainersRenamed {
		out = append(out, fmt.Sprintf("%s: is now %s", c.Old.DN, c.New.DN))
	}
	return out
}

// digests names what every document says.
func (c catalogue) digests() map[store.DocumentKey][sha256.Size]byte {
	out := make(map[store.DocumentKey][sha256.Size]byte, len(c.stored.List))
	for _, d := range c.stored.List {
		out[d.DocumentKey] = sha256.Sum256(d.Content)
	}
	return out
}

// digest names all documents; they are ordered by kind and name.
func (c catalogue) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, d := range c.stored.List {
		fmt.Fprintf(h, "%q %q %d\n%s", d.Kind, d.Name, len(d.Content), d.Content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// digest names a change of documents.
func (in intent) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, w := range in.put {
		key := keyOf(w.doc)
		fmt.Fprintf(h, "put %q %q %d\n%s", key.Kind, key.Name, len(w.text), w.text)
	}
	for _, key := range in.without {
		fmt.Fprintf(h, "delete %q %q\n", key.Kind, key.Name)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
