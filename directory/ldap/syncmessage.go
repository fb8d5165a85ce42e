package ldap

import (
	"errors"
	"fmt"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// errMessage says that a server's message is none of RFC 4533.
var errMessage = errors.New("malformed message of content synchronization")

// syncMessage makes a message of content synchronization of an entry with its controls, or of an intermediate response. It is
// nil for an intermediate response of another kind, which RFC 4511 4.13 lets us ignore.
func syncMessage(schema directory.Schema, r received) (contentsync.Message, error) {
	if r.op == opSearchResultEntry {
		states, err := syncStates(r.controls)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %q: %w", errMessage, r.entry.DN, err)
		}
		return syncEntry(schema, r.entry, states)
	}
	controls, err := intermediate(r.intermediate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return syncIntermediate(controls)
}

func syncIntermediate(controls []goldap.Control) (contentsync.Message, error) {
	for _, c := range controls {
		if info, ok := c.(*goldap.ControlSyncInfo); ok {
			return syncInfo(info)
		}
	}
	return nil, nil
}

func syncInfo(info *goldap.ControlSyncInfo) (contentsync.Message, error) {
	switch {
	case info.NewCookie != nil:
		return contentsync.NewCookie{Cookie: contentsync.Cookie(info.NewCookie.Cookie)}, nil
	case info.RefreshDelete != nil:
		i := info.RefreshDelete
		return contentsync.PhaseEnd{Deletes: true, Done: i.RefreshDone, Cookie: contentsync.Cookie(i.Cookie)}, nil
	case info.RefreshPresent != nil:
		i := info.RefreshPresent
		return contentsync.PhaseEnd{Done: i.RefreshDone, Cookie: contentsync.Cookie(i.Cookie)}, nil
	case info.SyncIdSet != nil:
		i := info.SyncIdSet
		set := contentsync.IDSet{Deletes: i.RefreshDeletes, Cookie: contentsync.Cookie(i.Cookie), UUIDs: make([]directory.UUID, len(i.SyncUUIDs))}
		for n, u := range i.SyncUUIDs {
			set.UUIDs[n] = directory.UUID(u)
			if set.UUIDs[n].IsZero() {
				return nil, fmt.Errorf("%w: a set of entries names the nil UUID", errMessage)
			}
		}
		return set, nil
	}
	return nil, fmt.Errorf("%w: sync info of kind %d without its value", errMessage, info.Value)
}

func syncEntry(schema directory.Schema, entry directory.Entry, states []syncState) (contentsync.Message, error) {
	switch len(states) {
	case 1:
	case 0: // RFC 4533 3.3, 3.4: every entry carries the control.
		return nil, fmt.Errorf("%w: entry %q has no Sync State Control", errMessage, entry.DN)
	default:
		return nil, fmt.Errorf("%w: entry %q has %d Sync State Controls", errMessage, entry.DN, len(states))
	}
	state := states[0]
	m := contentsync.EntryState{UUID: state.uuid, Cookie: contentsync.Cookie(strings.Clone(state.cookie))}
	if m.UUID.IsZero() {
		return nil, fmt.Errorf("%w: entry %q has the nil UUID", errMessage, entry.DN)
	}
	switch goldap.ControlSyncStateState(state.state) {
	case goldap.SyncStatePresent:
		m.State = contentsync.Present
		return m, nil
	case goldap.SyncStateDelete:
		m.State = contentsync.Delete
		return m, nil
	case goldap.SyncStateAdd:
		m.State = contentsync.Add
	case goldap.SyncStateModify:
		m.State = contentsync.Modify
	default:
		return nil, fmt.Errorf("%w: entry %q has state %d", errMessage, entry.DN, state.state)
	}
	var err error
	m.Item, err = syncItem(schema, m.UUID, entry)
	return m, err
}

func syncItem(schema directory.Schema, u directory.UUID, entry directory.Entry) (contentsync.Item, error) {
	for _, a := range entry.Attributes {
		if _, ranged := parseRange(a.Name); ranged {
			return contentsync.Item{}, fmt.Errorf("%w: entry %q comes with a part of the values of %s only", errMessage, entry.DN, a.Name)
		}
	}
	return item(schema, u, entry)
}

// item is what is kept of an entry that is announced as u.
func item(schema directory.Schema, u directory.UUID, e directory.Entry) (contentsync.Item, error) {
	object, problems, err := schema.Map(e)
	if err != nil {
		return contentsync.Item{}, err
	}
	item := contentsync.Item{Problems: problems}
	if object == nil {
		if item.DN, err = directory.ParseDN(e.DN); err != nil {
			return contentsync.Item{}, err
		}
		return item, nil
	}
	item.Object = directory.Normalise(object)
	var own directory.UUID
	if own, item.DN = object.Identity(); own != u {
		return contentsync.Item{}, fmt.Errorf("%w: entry %q has entryUUID %s and is announced as %s", errMessage, e.DN, own, u)
	}
	return item, nil
}
