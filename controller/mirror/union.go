package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// A Member is one of the directories of a Union.
type Member struct {
	// Name of the source.
	Name   string
	Mirror *Mirror
	// wake tells the union of another View.
	wake chan struct{}
}

// NewMember makes a Member: its mirror with the configuration, whose Changed is the union's.
func NewMember(ctx context.Context, name string, c Config) (Member, error) {
	wake := make(chan struct{}, 1)
	c.Changed = func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	m, err := New(ctx, c)
	if err != nil {
		return Member{}, fmt.Errorf("directory %q: %w", name, err)
	}
	return Member{name, m, wake}, nil
}

// ErrSource says that there is no source of the name that was given.
var ErrSource = errors.New("there is no such directory source")

// A Union is the directory that several sources make together, each with its own mirror. What a source loses, its own
// mirror decides; the machines of the others are never touched by it.
type Union struct {
	members []Member // in the order of their precedence
	changed func()
	log     hclog.Logger
	view    atomic.Pointer[View]

	// Owned by the goroutine of Run.
	joined []*View
}

// NewUnion joins members, of which there is at least one, in the order of their precedence. changed is called after a new
// View is published; it must not block.
func NewUnion(members []Member, changed func(), log hclog.Logger) (*Union, error) {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	u := &Union{members: members, changed: changed, log: log, joined: make([]*View, len(members))}
	return u, u.join()
}

// View returns the directory in force, nil before the first read of any source.
func (u *Union) View() *View {
	if len(u.members) == 1 {
		return u.members[0].Mirror.View()
	}
	return u.view.Load()
}

// Sources names the sources in the order of their precedence.
func (u *Union) Sources() []string {
	var names []string
	for _, m := range u.members {
		names = append(names, m.Name)
	}
	return names
}

// Status describes the mirror of a source. The error is ErrSource.
func (u *Union) Status(source string) (Status, error) {
	m, err := u.member(source)
	if err != nil {
		return Status{}, err
	}
	return m.Mirror.Status(), nil
}

// Collisions are the problems that no source has by itself: what several of them claim.
func (u *Union) Collisions() []directory.Problem {
	view := u.View()
	if view == nil || len(u.members) == 1 {
		return nil
	}
	own := map[directory.Problem]bool{}
	for _, m := range u.members {
		if v := m.Mirror.View(); v != nil {
			for _, p := range v.Snapshot.Problems() {
				own[p] = true
			}
		}
	}
	var out []directory.Problem
	for _, p := range view.Snapshot.Problems() {
		if !own[p] {
			out = append(out, p)
		}
	}
	return out
}

// member finds a source; "" is the only one.
func (u *Union) member(source string) (Member, error) {
	if source == "" && len(u.members) == 1 {
		return u.members[0], nil
	}
	for _, m := range u.members {
		if m.Name == source {
			return m, nil
		}
	}
	if source == "" {
		return Member{}, fmt.Errorf("%w: there are several, name one of %v", ErrSource, u.Sources())
	}
	return Member{}, fmt.Errorf("%w: %q, there are %v", ErrSource, source, u.Sources())
}

// holder finds the source that holds a change; without any it is the first that holds another one, or just the first, for
// its error.
func (u *Union) holder(id guard.ID) Member {
	found := u.members[0]
	for _, m := range slices.Backward(u.members) {
		for _, held := range []*guard.Held{m.Mirror.heldPolicy.Load(), m.Mirror.held.Load()} {
			if held == nil {
				continue
			}
			if found = m; held.ID == id {
				return m
			}
		}
	}
	return found
}

// Release applies the held change with the id, whatever source it is of. Errors are those of Mirror.Release.
func (u *Union) Release(ctx context.Context, id guard.ID, by string) (guard.Held, error) {
	return u.holder(id).Mirror.Release(ctx, id, by)
}

// Discard marks the held change with the id as not to be applied. Errors are those of Mirror.Discard.
func (u *Union) Discard(ctx context.Context, id guard.ID, by string) error {
	return u.holder(id).Mirror.Discard(ctx, id, by)
}

// Reassign asks the guard of a source; see Mirror.Reassign. Errors wrap ErrSource and those of Mirror.Reassign.
func (u *Union) Reassign(ctx context.Context, source string, all []guard.Reassigned) (held guard.Held, pass bool, err error) {
	m, err := u.member(source)
	if err != nil {
		return guard.Held{}, false, err
	}
	return m.Mirror.Reassign(ctx, all)
}

// Apply tells the guard of a source; see Mirror.Apply. Errors are those of Reassign.
func (u *Union) Apply(ctx context.Context, source string, h guard.Held) error {
	m, err := u.member(source)
	if err != nil {
		return err
	}
	return m.Mirror.Apply(ctx, h)
}

// Raise announces one change of a source. Errors wrap ErrSource and those of Mirror.Raise.
func (u *Union) Raise(ctx context.Context, source string, r guard.Raise, by string) error {
	m, err := u.member(source)
	if err != nil {
		return err
	}
	return m.Mirror.Raise(ctx, r, by)
}

// Held returns the change that waits in a source and what the whole would be with it; nil when none waits. An empty source
// is the first that holds one.
func (u *Union) Held(source string) (*guard.Held, *directory.Snapshot, error) {
	for i, m := range u.members {
		held := m.Mirror.held.Load()
		if source != "" && m.Name != source || source == "" && held == nil {
			continue
		}
		if held == nil {
			return nil, nil, nil
		}
		next, err := u.with(i, held.Next())
		return held, next, err
	}
	if source == "" {
		return nil, nil, nil
	}
	_, err := u.member(source)
	return nil, nil, err
}

// Move tells what the whole would be if an entry were in another container, and what the guard of its source would do.
// Both are named as the View has them. Errors are those of directory.Snapshot.Move and of Mirror.Consider.
func (u *Union) Move(ctx context.Context, dn, to directory.DN) (next *directory.Snapshot, held guard.Held, pass bool, err error) {
	view := u.View()
	if view == nil {
		return nil, guard.Held{}, false, ErrStopped
	}
	if len(u.members) == 1 {
		if next, err = view.Snapshot.Move(dn, to); err != nil {
			return nil, guard.Held{}, false, err
		}
		held, pass, err = u.members[0].Mirror.Consider(ctx, next)
		return next, held, pass, err
	}
	entry, ok := view.Snapshot.ObjectByDN(dn)
	target, known := view.Snapshot.ContainerByDN(to)
	if !ok || !known {
		_, err := view.Snapshot.Move(dn, to) // for its error
		return nil, guard.Held{}, false, err
	}
	id, _ := entry.Identity()
	for i, m := range u.members {
		own := m.Mirror.View()
		if own == nil {
			continue
		}
		there, ok := own.Snapshot.Object(id)
		if !ok {
			continue
		}
		_, from := there.Identity()
		container, ok := own.Snapshot.Container(target.UUID)
		if !ok {
			return nil, guard.Held{}, false, fmt.Errorf("%w: %q is of source %s, and %q is not", directory.ErrMove, dn, m.Name, to)
		}
		moved, err := own.Snapshot.Move(from, container.DN)
		if err != nil {
			return nil, guard.Held{}, false, err
		}
		if held, pass, err = m.Mirror.Consider(ctx, moved); err != nil {
			return nil, guard.Held{}, false, err
		}
		next, err = u.with(i, moved)
		return next, held, pass, err
	}
	return nil, guard.Held{}, false, fmt.Errorf("%w: %q is of no source", directory.ErrMove, dn)
}

// with is the whole with another state of one source.
func (u *Union) with(member int, snapshot *directory.Snapshot) (*directory.Snapshot, error) {
	var parts []directory.Part
	for i, m := range u.members {
		if i == member {
			parts = append(parts, directory.Part{Name: m.Name, Snapshot: snapshot})
		} else if v := m.Mirror.View(); v != nil {
			parts = append(parts, directory.Part{Name: m.Name, Snapshot: v.Snapshot})
		}
	}
	return directory.Union(parts)
}

// join publishes the union of what the mirrors have, if that is another one than before.
func (u *Union) join() error {
	views := make([]*View, len(u.members))
	for i, m := range u.members {
		views[i] = m.Mirror.View()
	}
	if slices.Equal(views, u.joined) {
		return nil
	}
	next, err := joinViews(u.members, views)
	if err != nil || next == nil {
		return err
	}
	u.joined = views
	u.view.Store(next)
	return nil
}

// joinViews is the union of the views that are there; nil without any.
func joinViews(members []Member, views []*View) (*View, error) {
	if len(members) == 1 {
		return views[0], nil
	}
	var parts []directory.Part
	out := &View{Vanished: map[directory.UUID]Vanished{}}
	for i, v := range views {
		if v == nil {
			out.Restored = true // nobody knows what that source holds: nothing follows from what is missing here
			continue
		}
		parts = append(parts, directory.Part{Name: members[i].Name, Snapshot: v.Snapshot})
		out.Restored = out.Restored || v.Restored
		if v.Accepted.After(out.Accepted) {
			out.Accepted = v.Accepted
		}
	}
	if len(parts) == 0 {
		return nil, nil
	}
	var err error
	if out.Snapshot, err = directory.Union(parts); err != nil {
		return nil, fmt.Errorf("join the directories: %w", err)
	}
	for _, v := range views {
		if v == nil {
			continue
		}
		for id, gone := range v.Vanished {
			if _, there := out.Snapshot.Machine(id); there {
				continue // another source has it
			}
			// The longer grace counts.
			if known, twice := out.Vanished[id]; !twice || known.Until.Before(gone.Until) {
				out.Vanished[id] = gone
			}
		}
	}
	return out, nil
}

// Run runs every mirror until ctx ends. Its goroutine is the only one that publishes a View.
func (u *Union) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	errs := make(chan error, len(u.members))
	wake := make(chan struct{}, 1)
	for _, m := range u.members {
		running.Go(func() { errs <- m.Mirror.Run(ctx) })
		running.Go(func() {
			for {
				select {
				case <-m.wake:
				case <-ctx.Done():
					return
				}
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		})
	}
	failing := false
	for {
		select {
		case <-wake:
			err := u.join()
			if err != nil && !failing {
				u.log.Error("cannot join the directories, the last state stays in force", "error", err)
			}
			failing = err != nil
			if err == nil && u.view.Load() != nil {
				u.changed()
			}
		case <-ctx.Done():
			running.Wait()
			var all []error
			for range u.members {
				all = append(all, <-errs)
			}
			return errors.Join(all...)
		}
	}
}
