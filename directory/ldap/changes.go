package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/replication"
)

const (
	// guidsPerSearch bounds the filter of a search for entries by identity.
	guidsPerSearch = 100
	// dirSyncBytes is about how much one answer of DirSync may hold.
	dirSyncBytes = 1 << 20
)

// changes asks for what changed since a state that is known, and returns the next cookie where that is DirSync's.
//
// Which entries changed is asked without the schema's filter, and then what they are with it: of an entry that has ceased to
// match, a filter would tell nothing. In that order, because what changes in between still matches the second, or not.
func (r *replica) changes(k *known) (batch []replication.Change, cookie []byte, err error) {
	if r.dirSync {
		return r.changesByDirSync(k)
	}
	var changed []directory.UUID
	since := fmt.Sprintf("(uSNChanged>=%d)", k.server.USN+1)
	err = r.pagesOf(r.context, since, func(e directory.Entry) error {
		// What hides its identity was never known.
		if u, err := directory.UUIDFromObjectGUID([]byte(strings.Join(e.Values("objectGUID"), ""))); err == nil && k.content.Has(u) {
			changed = append(changed, u)
		}
		return nil
	}, []string{"objectGUID"}, showDeleted())
	if err != nil {
		return nil, nil, err
	}
	told := map[directory.UUID]bool{}
	if err := r.readChanges(since, &batch, told); err != nil {
		return nil, nil, err
	}
	return append(batch, gone(changed, told)...), nil, nil
}

// readChanges reads the entries that a filter and the schema's match, and those of them that are deleted.
func (r *replica) readChanges(filter string, batch *[]replication.Change, told map[directory.UUID]bool) error {
	return r.pagesOf(r.context, "(&"+filter+"(|(isDeleted=TRUE)"+r.Schema.Filter()+"))", func(e directory.Entry) error {
		c, err := r.change(e)
		*batch = append(*batch, c)
		told[c.UUID] = true
		return err
	}, r.attributes(), showDeleted())
}

// gone are the entries that were known and are not among those that were told of.
func gone(changed []directory.UUID, told map[directory.UUID]bool) (batch []replication.Change) {
	for _, u := range changed {
		if !told[u] {
			batch = append(batch, replication.Change{UUID: u, Gone: true})
		}
	}
	return batch
}

// groups reads what all groups are.
func (r *replica) groups() (batch []replication.Change, err error) {
	err = r.pages(r.Schema.GroupsFilter(), func(e directory.Entry) error {
		c, err := r.change(e)
		batch = append(batch, c)
		return err
	}, r.attributes())
	return batch, err
}

// changesByDirSync learns from DirSync which entries changed, and reads those: DirSync tells attributes that changed, and
// never a part of the values of one.
func (r *replica) changesByDirSync(k *known) (batch []replication.Change, cookie []byte, err error) {
	var read []string
	// "name" changes when an entry is moved or renamed; an entry of which nothing changed that is asked for is not told of.
	attributes := slices.Concat(r.attributes(), []string{"name"}, filterAttributes(r.Schema.Filter()))
	cookie, err = r.dirSyncAll("(objectClass=*)", attributes, k.cookie, func(e *goldap.Entry) error {
		guid := e.GetEqualFoldRawAttributeValue("objectGUID")
		u, err := directory.UUIDFromObjectGUID(guid)
		switch {
		case err != nil:
			return r.wrapAs(ErrProtocol, duringSync, fmt.Errorf("DirSync tells of entry %q: %w", e.DN, err))
		case strings.EqualFold(e.GetEqualFoldAttributeValue("isDeleted"), "TRUE"):
			batch = append(batch, replication.Change{UUID: u, Gone: true})
		default:
			read = append(read, string(guid))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(read)
	read = slices.Compact(read)
	told := map[directory.UUID]bool{}
	for chunk := range slices.Chunk(read, guidsPerSearch) {
		if err := r.readChanges(anyGUID(chunk), &batch, told); err != nil {
			return nil, nil, err
		}
	}
	var changed []directory.UUID
	var ceased []string
	for _, guid := range read {
		// An entry that is none of ours is told of as well.
		if u, err := directory.UUIDFromObjectGUID([]byte(guid)); err == nil && !told[u] && k.content.Has(u) {
			changed, ceased = append(changed, u), append(ceased, guid)
		}
	}
	found := 0
	for chunk := range slices.Chunk(ceased, guidsPerSearch) {
		err := r.pagesOf(r.context, anyGUID(chunk), func(directory.Entry) error {
			found++
			return nil
		}, []string{"objectGUID"}, showDeleted())
		if err != nil {
			return nil, nil, err
		}
	}
	if found < len(ceased) {
		return nil, nil, fmt.Errorf("%w: DirSync tells of %d entries that cannot be seen", replication.ErrAnew, len(ceased)-found)
	}
	return append(batch, gone(changed, told)...), cookie, nil
}

// anyGUID is a filter of entries by identity.
func anyGUID(guids []string) string {
	var filter strings.Builder
	filter.WriteString("(|")
	for _, guid := range guids {
		filter.WriteString("(objectGUID=" + escapeOctets(guid) + ")")
	}
	filter.WriteString(")")
	return filter.String()
}

// filterAttributes are the attributes that a filter (RFC 4515) is about; none when it is malformed.
func filterAttributes(filter string) []string {
	compiled, err := goldap.CompileFilter(filter)
	if err != nil {
		return nil
	}
	var names []string
	var walk func(*ber.Packet)
	walk = func(p *ber.Packet) {
		switch p.Tag {
		case goldap.FilterAnd, goldap.FilterOr, goldap.FilterNot:
			for _, c := range p.Children {
				walk(c)
			}
		case goldap.FilterPresent:
			names = append(names, p.Data.String())
		case goldap.FilterExtensibleMatch:
			for _, c := range p.Children {
				if c.Tag == goldap.MatchingRuleAssertionType {
					names = append(names, c.Data.String())
				}
			}
		default:
			if len(p.Children) > 0 {
				names = append(names, p.Children[0].Data.String())
			}
		}
	}
	walk(compiled)
	for i, n := range names {
		names[i], _, _ = strings.Cut(strings.ToLower(n), ";")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// cookie0 asks for the state that DirSync is at, with no entries but deleted containers. One that everybody has is that of
// the deleted entries, which counts as deleted itself: a server that does not show it tells nothing of deletions.
func (r *replica) cookie0() (cookie []byte, deleted bool, err error) {
	cookie, err = r.dirSyncAll("(&(isDeleted=TRUE)(objectClass=container))", []string{"isDeleted", "objectGUID"}, nil, func(e *goldap.Entry) error {
		deleted = deleted || strings.EqualFold(e.GetEqualFoldAttributeValue("isDeleted"), "TRUE")
		return nil
	})
	return cookie, deleted, err
}

// dirSyncAll asks by DirSync until the server says that there is no more, and returns the cookie that it is at then.
func (r *replica) dirSyncAll(filter string, attributes []string, cookie []byte, each func(*goldap.Entry) error) ([]byte, error) {
	var watch parts
	seen := newArrivals(r.PageSize)
	for more := true; more; {
		asked := cookie
		var result *goldap.SearchResult
		var err error
		if result, cookie, more, err = r.ask(filter, attributes, asked); err != nil {
			return nil, err
		}
		for _, e := range result.Entries {
			if err := seen.add(e.DN); err != nil {
				return nil, r.wrapAs(ErrProtocol, duringSync, err)
			}
			if err := each(e); err != nil {
				return nil, err
			}
		}
		if !more {
			break
		}
		if err := watch.next(asked, cookie, int64(len(result.Entries))); err != nil {
			return nil, r.wrapAs(ErrProtocol, duringSync, err)
		}
	}
	return cookie, nil
}

// ask sends one request of DirSync.
func (r *replica) ask(filter string, attributes []string, cookie []byte) (result *goldap.SearchResult, next []byte, more bool, err error) {
	request := goldap.NewRequestControlDirSync(0, dirSyncBytes, cookie)
	if result, err = r.search(r.context, goldap.ScopeWholeSubtree, filter, attributes, request); err != nil {
		if len(cookie) > 0 && !errors.Is(err, ErrInterrupted) && !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnreachable) {
			// A cookie that the server does not take is that of another one.
			err = fmt.Errorf("%w: %w", replication.ErrAnew, err)
		}
		return nil, nil, false, err
	}
	answer, ok := goldap.FindControl(result.Controls, goldap.ControlTypeDirSync).(*goldap.ControlDirSync)
	if !ok || len(answer.Cookie) == 0 {
		return nil, nil, false, r.wrapAs(ErrProtocol, duringSync, errors.New("the answer carries no DirSync cookie"))
	}
	return result, answer.Cookie, answer.Flags != 0, nil
}
