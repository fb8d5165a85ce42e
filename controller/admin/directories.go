package admin

import (
	"context"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// maxHeldChanges bounds how many changes of a held set are listed with the status.
const maxHeldChanges = 50

// GetDirectoryStatus implements adminv1.FleetServiceServer. Without a name it tells of the first source.
func (s *Server) GetDirectoryStatus(_ context.Context, r *adminv1.GetDirectoryStatusRequest) (*adminv1.GetDirectoryStatusResponse, error) {
	name := r.GetSource()
	if name == "" {
		name = s.config.Mirror.Sources()[0]
	}
	return s.describeSource(name)
}

// ListSources implements adminv1.DirectoryServiceServer.
func (s *Server) ListSources(context.Context, *adminv1.ListSourcesRequest) (*adminv1.ListSourcesResponse, error) {
	response := &adminv1.ListSourcesResponse{}
	for _, name := range s.config.Mirror.Sources() {
		source, err := s.describeSource(name)
		if err != nil {
			return nil, err
		}
		response.Sources = append(response.Sources, source)
	}
	for _, text := range s.config.Mirror.Collisions() {
		response.Collisions = append(response.Collisions, text.String())
	}
	return response, nil
}

func (s *Server) describeSource(name string) (*adminv1.GetDirectoryStatusResponse, error) {
	st, err := s.config.Mirror.Status(name)
	if err != nil {
		return nil, refuse(err)
	}
	src := st.Source
	response := &adminv1.GetDirectoryStatusResponse{
		Source: name,
		Kind:   src.Kind, Location: src.Location, Base: src.Base, LastRead: stamp(src.LastRead), NextRead: stamp(src.NextRead),
		Protocol: src.Protocol, ProtocolNote: src.ProtocolNote, LastFullRead: stamp(src.LastFull),
		LastError: src.LastError, LastErrorAt: stamp(src.LastErrorAt), Failures: uint32(src.Failures), TrustDomain: s.config.TrustDomain,
		Counts: &adminv1.DirectoryCounts{
			Reads: st.Counts.Reads, Failures: st.Counts.Failures, Changes: st.Counts.Changes, Held: st.Counts.Held, Vanished: st.Counts.Vanished, Expired: st.Counts.Expired,
		},
	}
	response.GroupPolicy = s.describeGroupPolicy(name)
	if lag, ok := src.Lag(s.config.Now()); ok && src.Kind == "ldap" {
		response.Lag = durationpb.New(lag)
	}
	if v := st.View; v != nil {
		s.describeView(response, v)
	}
	if st.Held != nil {
		response.Held = describeHeld(*st.Held, maxHeldChanges)
	}
	if st.Raised != nil {
		response.RaisedMachines, response.RaisedUntil = uint32(min(st.Raised.Machines, math.MaxUint32)), stamp(st.Raised.Until)
	}
	for _, dn := range st.Unguarded {
		response.Unguarded = append(response.Unguarded, dn.String())
	}
	if t := s.config.Resolver.Table(); t != nil {
		response.FailedTests = t.FailedTests()
	}
	return response, nil
}

func (s *Server) describeView(response *adminv1.GetDirectoryStatusResponse, v *mirror.View) {
	containers, machines, groups := v.Snapshot.Len()
	response.Containers, response.Machines, response.Groups = uint32(containers), uint32(machines), uint32(groups)
	response.Digest, response.Accepted, response.Restored = v.Snapshot.Digest().String(), stamp(v.Accepted), v.Restored
	if response.GetBase() == "" {
		response.Base = v.Snapshot.Base().String()
	}
	for _, p := range v.Snapshot.Problems() {
		response.Problems = append(response.Problems, p.String())
	}
	for _, gone := range sortedVanished(v) {
		a := s.config.Resolver.Assignment(gone.Machine.UUID)
		response.Vanished = append(response.Vanished, &adminv1.Vanished{
			Name: gone.Machine.Name, Dn: gone.Machine.DN.String(), Uuid: gone.Machine.UUID.String(),
			Since: stamp(gone.Since), Until: stamp(gone.Until), Policy: a.Policy,
		})
	}
}

// describeHeld lists at most the given number of changes.
func describeHeld(h guard.Held, most int) *adminv1.HeldChange {
	out := &adminv1.HeldChange{
		Id: h.ID.String(), Since: stamp(h.Since), Discarded: stamp(h.Discarded), Summary: h.Summary(), Reason: h.Reason(), Total: uint32(h.Affected()),
	}
	add := func(text string) {
		if len(out.Changes) < most {
			out.Changes = append(out.Changes, text)
		}
	}
	for _, m := range h.Removed {
		add(m.Name + ": removed, was " + m.DN.String())
	}
	for _, c := range h.Changed {
		add(c.String())
	}
	for _, r := range h.Reassigned {
		add(r.String())
	}
	return out
}

// ListHeld implements adminv1.DirectoryServiceServer.
func (s *Server) ListHeld(_ context.Context, r *adminv1.ListHeldRequest) (*adminv1.ListHeldResponse, error) {
	names, err := s.sourcesNamed(r.GetSource())
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListHeldResponse{}
	for _, name := range names {
		st, err := s.config.Mirror.Status(name)
		if err != nil {
			return nil, refuse(err)
		}
		for _, held := range st.AllHeld() {
			response.Held = append(response.Held, &adminv1.HeldInSource{Source: name, Change: describeHeld(held, math.MaxInt)})
		}
	}
	return response, nil
}

// sourcesNamed is the source of that name, or all of them for "".
func (s *Server) sourcesNamed(name string) ([]string, error) {
	if name == "" {
		return s.config.Mirror.Sources(), nil
	}
	if _, err := s.config.Mirror.Status(name); err != nil {
		return nil, refuse(err)
	}
	return []string{name}, nil
}

func parseHeldID(text string) (guard.ID, error) {
	id, err := guard.ParseID(text)
	if err != nil {
		return guard.ID{}, status.Errorf(codes.InvalidArgument, "%v; look at: bailiwick directory status", err)
	}
	return id, nil
}

// ReleaseChange implements adminv1.FleetServiceServer.
func (s *Server) ReleaseChange(ctx context.Context, r *adminv1.ReleaseChangeRequest) (*adminv1.ReleaseChangeResponse, error) {
	id, err := parseHeldID(r.GetId())
	if err != nil {
		return nil, err
	}
	released, err := s.config.Mirror.Release(ctx, id, actor(ctx).Name)
	if err != nil {
		return nil, refuse(err)
	}
	s.config.Log.Warn("held directory change released", "id", id, "by", actor(ctx).Name)
	if len(released.Reassigned) > 0 && s.config.ReadGroupPolicy != nil {
		s.config.ReadGroupPolicy()
	}
	return &adminv1.ReleaseChangeResponse{Summary: released.Summary()}, nil
}

// DiscardChange implements adminv1.FleetServiceServer.
func (s *Server) DiscardChange(ctx context.Context, r *adminv1.DiscardChangeRequest) (*adminv1.DiscardChangeResponse, error) {
	id, err := parseHeldID(r.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.config.Mirror.Discard(ctx, id, actor(ctx).Name); err != nil {
		return nil, refuse(err)
	}
	s.config.Log.Warn("held directory change discarded", "id", id, "by", actor(ctx).Name)
	return &adminv1.DiscardChangeResponse{}, nil
}

// RaiseLimit implements adminv1.DirectoryServiceServer.
func (s *Server) RaiseLimit(ctx context.Context, r *adminv1.RaiseLimitRequest) (*adminv1.RaiseLimitResponse, error) {
	if err := r.GetLife().CheckValid(); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "for how long? %v", err)
	}
	raise := guard.Raise{Machines: int(r.GetMachines()), Until: s.config.Now().Add(r.GetLife().AsDuration())}
	if err := s.config.Mirror.Raise(ctx, r.GetSource(), raise, actor(ctx).Name); err != nil {
		return nil, refuse(err)
	}
	s.config.Log.Warn("limits of the directory guard raised for one change", "source", r.GetSource(), "machines", raise.Machines, "until", raise.Until, "by", actor(ctx).Name)
	return &adminv1.RaiseLimitResponse{Until: stamp(raise.Until)}, nil
}

// CheckSources implements adminv1.DirectoryServiceServer.
func (s *Server) CheckSources(ctx context.Context, r *adminv1.CheckSourcesRequest) (*adminv1.CheckSourcesResponse, error) {
	names, err := s.sourcesNamed(r.GetSource())
	if err != nil {
		return nil, err
	}
	response := &adminv1.CheckSourcesResponse{}
	for _, source := range s.config.Sources {
		for _, name := range names {
			if source.Name == name {
				response.Sources = append(response.Sources, describeCheck(source, source.Probe(ctx, s.config.Now)))
			}
		}
	}
	return response, nil
}

func describeCheck(source settings.CheckedSource, findings []ldap.Finding) *adminv1.CheckedSource {
	out := &adminv1.CheckedSource{Source: source.Name, Location: source.Location(), Outcome: ldap.Worst(findings).String()}
	for _, f := range findings {
		out.Findings = append(out.Findings, &adminv1.CheckFinding{Subject: f.Subject, Outcome: f.Outcome.String(), Detail: f.Detail, Hint: f.Hint})
	}
	return out
}

// maxEvents bounds one answer.
const maxEvents = 10_000

// ListDirectoryEvents implements adminv1.DirectoryServiceServer.
func (s *Server) ListDirectoryEvents(ctx context.Context, r *adminv1.ListDirectoryEventsRequest) (*adminv1.ListDirectoryEventsResponse, error) {
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = 100
	}
	if limit > maxEvents {
		return nil, status.Errorf(codes.InvalidArgument, "%d events are more than %d", limit, maxEvents)
	}
	events, err := s.config.Store.DirectoryEvents(ctx, r.GetSource(), limit)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.ListDirectoryEventsResponse{}
	for _, e := range events {
		response.Events = append(response.Events, &adminv1.DirectoryEvent{
			At: stamp(e.At), Source: e.Source, Kind: e.Kind, By: e.By, Change: e.Change, Text: e.Text,
		})
	}
	return response, nil
}
