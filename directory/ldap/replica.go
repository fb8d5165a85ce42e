package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/replication"
)

// deletedObjects is the well-known identity of the container that deleted entries are kept in (MS-ADTS 6.1.1.4).
const deletedObjects = "18E2EA80684F11D2B9AA00C04F79F805"

// replica is a domain controller that is asked for changes.
type replica struct {
	*session
	end context.CancelFunc
	// context is the naming context that holds the base; inner says that the base is below its top.
	context string
	inner   bool
	service string             // the DN of the domain controller's settings
	last    replication.Server // as state found it
	dirSync bool
	note    string // why it is not DirSync
}

// openReplica connects, and finds out what the server and our rights allow. The error wraps errNoChanges when that is too
// little.
func (t target) openReplica(own context.Context, cancel context.CancelFunc) (*replica, error) {
	session, closeSession, err := t.open(own)
	if err != nil {
		return nil, err
	}
	r := &replica{session: session, end: func() { cancel(); closeSession() }}
	if err := r.explore(); err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

func (r *replica) explore() error {
	root, err := r.rootDSE("supportedControl", "namingContexts")
	if err != nil {
		return err
	}
	for _, name := range root.GetEqualFoldAttributeValues("namingContexts") {
		dn, err := directory.ParseDN(name)
		if err == nil && (r.Base.Equal(dn) || r.Base.IsDescendantOf(dn)) && len(name) > len(r.context) {
			r.context, r.inner = name, !r.Base.Equal(dn)
		}
	}
	if r.context == "" {
		return fmt.Errorf("%w: no naming context of the server holds %s", errNoChanges, r.Base)
	}
	if _, err = r.state(); err != nil {
		return err
	}
	if r.note, err = r.tryDirSync(root); r.note == "" || err != nil {
		r.dirSync = err == nil
		return err
	}
	entry, err := r.search("<WKGUID="+deletedObjects+","+r.context+">", goldap.ScopeBaseObject, "(objectClass=*)", []string{"objectClass"}, showDeleted())
	switch {
	case errors.Is(err, ErrNoBase), errors.Is(err, ErrDenied), err == nil && (len(entry.Entries) != 1 || len(entry.Entries[0].Attributes) == 0):
		return fmt.Errorf(`%w: %s; and %s may not see deleted entries (grant List Contents and Read Property on "CN=Deleted Objects,%s")`,
			errNoChanges, r.note, r.who(), r.context)
	}
	return err
}

// tryDirSync says why DirSync cannot be used; "" when it can.
func (r *replica) tryDirSync(root *goldap.Entry) (note string, err error) {
	if !slices.Contains(root.GetEqualFoldAttributeValues("supportedControl"), goldap.ControlTypeDirSync) {
		return "the server does not offer DirSync", nil
	}
	_, deleted, err := r.cookie0()
	switch {
	case errors.Is(err, errEndless):
		return fmt.Sprintf("no DirSync: %v", err), nil
	case errors.Is(err, ErrDenied), errors.Is(err, ErrProtocol):
		return fmt.Sprintf(`no DirSync: %s lacks the right "Replicating Directory Changes" on %s`, r.who(), r.context), nil
	case err == nil && !deleted:
		return fmt.Sprintf("no DirSync: it does not tell %s of deleted entries", r.who()), nil
	}
	return "", err
}

// rootDSE reads attributes of the root DSE.
func (s *session) rootDSE(attributes ...string) (*goldap.Entry, error) {
	root, err := s.search("", goldap.ScopeBaseObject, "(objectClass=*)", attributes)
	if err != nil {
		return nil, err
	}
	if len(root.Entries) != 1 {
		return nil, s.wrapAs(ErrProtocol, duringSearch, errors.New("the root DSE cannot be read"))
	}
	return root.Entries[0], nil
}

// state asks which database answers and how far it is.
func (r *replica) state() (replication.Server, error) {
	root, err := r.rootDSE("dsServiceName", "highestCommittedUSN")
	if err != nil {
		return replication.Server{}, err
	}
	usn, err := strconv.ParseUint(root.GetEqualFoldAttributeValue("highestCommittedUSN"), 10, 64)
	service := root.GetEqualFoldAttributeValue("dsServiceName")
	if err != nil || service == "" {
		return replication.Server{}, fmt.Errorf("%w: the server does not say how far it is (highestCommittedUSN, dsServiceName)", errNoChanges)
	}
	s := replication.Server{Invocation: r.last.Invocation, USN: usn}
	if service != r.service {
		settings, err := r.search(service, goldap.ScopeBaseObject, "(objectClass=*)", []string{"invocationId"})
		if err != nil && !errors.Is(err, ErrNoBase) && !errors.Is(err, ErrDenied) {
			return replication.Server{}, err
		}
		var id []byte
		if err == nil && len(settings.Entries) == 1 {
			id = settings.Entries[0].GetEqualFoldRawAttributeValue("invocationId")
		}
		if s.Invocation, err = directory.UUIDFromObjectGUID(id); err != nil {
			return replication.Server{}, fmt.Errorf("%w: the server does not say which database it has: invocationId of %q cannot be read", errNoChanges, service)
		}
		r.service = service
	}
	r.last = s
	return s, nil
}

// showDeleted makes deleted entries visible (MS-ADTS 3.1.1.3.4.1.14).
func showDeleted() goldap.Control {
	return goldap.NewControlString(goldap.ControlTypeMicrosoftShowDeleted, true, "")
}

// accessControlOnly asks for, and writes, the discretionary list of a security descriptor and no more (MS-ADTS
// 3.1.1.3.4.1.11): who is no administrator may not see all of it. Its value is SEQUENCE { INTEGER 4 }.
func accessControlOnly() goldap.Control {
	return goldap.NewControlString("1.2.840.113556.1.4.801", true, "\x30\x03\x02\x01\x04")
}

// attributes of an entry whose state is read: isDeleted says that it is gone.
func (r *replica) attributes() []string { return append(r.Schema.Attributes(), "isDeleted") }

// entries reads the whole tree once.
func (r *replica) entries() ([]replication.Change, error) {
	var all []replication.Change
	err := r.pages(r.Schema.Filter(), func(e directory.Entry) error {
		c, err := r.change(e)
		all = append(all, c)
		return err
	}, r.attributes())
	return all, err
}

// change reads what an entry is now.
func (r *replica) change(e directory.Entry) (replication.Change, error) {
	var c replication.Change
	var err error
	if c.UUID, err = directory.UUIDFromObjectGUID([]byte(strings.Join(e.Values("objectGUID"), ""))); err != nil {
		return c, r.wrapAs(ErrContent, duringBuild, fmt.Errorf("entry %q: %w: check that the reader may see objectGUID", e.DN, err))
	}
	if slices.ContainsFunc(e.Values("isDeleted"), func(v string) bool { return strings.EqualFold(v, "TRUE") }) {
		c.Gone = true
		return c, nil
	}
	dn, err := directory.ParseDN(e.DN)
	if err != nil {
		return c, r.wrapAs(ErrContent, duringBuild, err)
	}
	if !dn.Equal(r.Base) && !dn.IsDescendantOf(r.Base) {
		c.Gone = true
		return c, nil
	}
	c.Item, err = item(*r.Schema, c.UUID, e)
	if err != nil {
		err = r.wrapAs(ErrContent, duringBuild, err)
	}
	return c, err
}

// escapeOctets writes octets as a filter has them (RFC 4515 3).
func escapeOctets(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\%02x`, s[i])
	}
	return b.String()
}
