package ldap

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A domainActor plays a domain controller within the process: it counts changes, evaluates filters, names members by their
// identity and pages three entries at a time. It has no change notification. What happens between two searches is put into
// its hook.
type domainActor struct {
	*actor
	offersDirSync bool

	mu      sync.Mutex
	usn     int
	objects []*domainObject
	// before is called before each search of a subtree is answered, without the lock, with the filter.
	before func(filter string)
	// endless answers DirSync so that more is always to come.
	endless bool
}

type domainObject struct {
	rdn        string // and what is above it
	parent     *domainObject
	guid       [16]byte
	attributes map[string][]string
	members    []*domainObject
	changed    map[string]int // update sequence numbers by attribute
	usn        int
}

const domainTop = "DC=lab,DC=example"

// newDomainActor plays a domain with a unit, five machines and two groups: G has the machine m4, H is empty.
func newDomainActor(offersDirSync bool) *domainActor {
	d := &domainActor{actor: &actor{noSync: true}, offersDirSync: offersDirSync}
	d.search, d.object = d.subtree, d.one
	top := d.add(domainTop, nil, "objectClass", "domainDNS")
	// Groups come before their members in every search.
	g := d.add("CN=G", top, "objectClass", "group", "cn", "G")
	d.add("CN=H", top, "objectClass", "group", "cn", "H")
	unit := d.add("OU=U", top, "objectClass", "organizationalUnit")
	for i := range 5 {
		name := fmt.Sprintf("m%d", i)
		d.add("CN="+name, unit, "objectClass", "computer", "sAMAccountName", name+"$", "l", "Vienna")
	}
	g.members = []*domainObject{d.find("CN=m4")}
	// Its own change is the oldest of all: nothing tells of it later.
	return d
}

func (d *domainActor) add(rdn string, parent *domainObject, pairs ...string) *domainObject {
	d.usn++
	o := &domainObject{rdn: rdn, parent: parent, attributes: map[string][]string{}, changed: map[string]int{}, usn: d.usn}
	binary.BigEndian.PutUint32(o.guid[4:], uint32(len(d.objects)+1))
	for p := range slices.Chunk(pairs, 2) {
		o.attributes[p[0]] = []string{p[1]}
		o.changed[strings.ToLower(p[0])] = d.usn
	}
	o.changed["name"] = d.usn
	d.objects = append(d.objects, o)
	return o
}

func (o *domainObject) dn() string {
	if o.parent == nil {
		return o.rdn
	}
	return o.rdn + "," + o.parent.dn()
}

// interrupt puts what happens before each search; nil is nothing.
func (d *domainActor) interrupt(before func(filter string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// find finds an object by its relative name.
func (d *domainActor) find(rdn string) *domainObject {
	i := slices.IndexFunc(d.objects, func(o *domainObject) bool { return o.rdn == rdn })
	if i < 0 {
		panic("the domain has no object " + rdn)
	}
	return d.objects[i]
}

// set changes an attribute; "name" renames.
func (d *domainActor) set(rdn, attribute, value string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.find(rdn)
	d.usn++
	o.usn = d.usn
	o.changed[strings.ToLower(attribute)] = d.usn
	if attribute == "name" {
		o.rdn = "CN=" + value
		return
	}
	o.attributes[attribute] = []string{value}
}

// entry is what a search returns of an object at this moment.
func (o *domainObject) entry() directory.Entry {
	e := directory.Entry{DN: o.dn(), Attributes: []directory.Attribute{
		{Name: "objectGUID", Values: []string{string(o.guid[:])}}, {Name: "uSNChanged", Values: []string{fmt.Sprint(o.usn)}},
	}}
	for name, values := range o.attributes {
		e.Attributes = append(e.Attributes, directory.Attribute{Name: name, Values: values})
	}
	if len(o.members) > 0 {
		member := directory.Attribute{Name: "member"}
		for _, m := range o.members {
			member.Values = append(member.Values, m.dn())
		}
		e.Attributes = append(e.Attributes, member)
	}
	return e
}

// matches evaluates a filter.
func matches(f *ber.Packet, e directory.Entry) bool {
	value := func() []string { return e.Values(f.Children[0].Data.String()) }
	switch uint64(f.Tag) {
	case goldap.FilterAnd:
		return !slices.ContainsFunc(f.Children, func(c *ber.Packet) bool { return !matches(c, e) })
	case goldap.FilterOr:
		return slices.ContainsFunc(f.Children, func(c *ber.Packet) bool { return matches(c, e) })
	case goldap.FilterNot:
		return !matches(f.Children[0], e)
	case goldap.FilterPresent:
		return strings.EqualFold(f.Data.String(), "objectClass") || len(e.Values(f.Data.String())) > 0
	case goldap.FilterEqualityMatch:
		return slices.ContainsFunc(value(), func(v string) bool { return strings.EqualFold(v, f.Children[1].Data.String()) })
	case goldap.FilterGreaterOrEqual:
		var have, least int
		_, _ = fmt.Sscan(strings.Join(value(), ""), &have)
		_, _ = fmt.Sscan(f.Children[1].Data.String(), &least)
		return have >= least
	}
	panic(fmt.Sprintf("the domain does not know filters of kind %d", f.Tag))
}

func (d *domainActor) one(c *actorConn, id int64, base string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := directory.Entry{DN: base, Attributes: []directory.Attribute{{Name: "objectClass", Values: []string{"top"}}}}
	switch base {
	case "":
		e.Attributes = []directory.Attribute{
			{Name: "namingContexts", Values: []string{domainTop}}, {Name: "dsServiceName", Values: []string{"CN=NTDS"}},
			{Name: "highestCommittedUSN", Values: []string{fmt.Sprint(d.usn)}},
		}
		if d.offersDirSync {
			e.Attributes = append(e.Attributes, directory.Attribute{Name: "supportedControl", Values: []string{goldap.ControlTypeDirSync}})
		}
	case "CN=NTDS":
		e.Attributes = []directory.Attribute{{Name: "invocationId", Values: []string{"0123456789abcdef"}}}
	}
	c.send(slices.Concat(entryMessage(id, e), resultMessage(id, goldap.ApplicationSearchResultDone, 0)))
	return true
}

func (d *domainActor) subtree(c *actorConn, id int64, request *ber.Packet, cookie string) bool {
	filter, _ := goldap.DecompileFilter(request.Children[6]) // for the hook alone
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before != nil {
		before(filter)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case c.asks(goldap.ControlTypeMicrosoftNotification):
		c.send(resultMessage(id, goldap.ApplicationSearchResultDone, goldap.LDAPResultUnwillingToPerform))
	case c.asks(goldap.ControlTypeDirSync):
		d.dirSync(c, id, request, cookie)
	default:
		var found []directory.Entry
		for _, o := range d.objects {
			if e := o.entry(); matches(request.Children[6], e) {
				found = append(found, e)
			}
		}
		from, next := 0, ""
		_, _ = fmt.Sscan(cookie, &from) // no cookie is the first page
		for _, e := range found[min(from, len(found)):min(from+3, len(found))] {
			c.send(entryMessage(id, e))
		}
		if from+3 < len(found) {
			next = fmt.Sprint(from + 3)
		}
		c.send(resultMessage(id, goldap.ApplicationSearchResultDone, 0, &goldap.ControlPaging{Cookie: []byte(next)}))
	}
	return true
}

// asks says whether the request has a control.
func (c *actorConn) asks(oid string) bool {
	return c.controls != nil && slices.ContainsFunc(c.controls.Children, func(p *ber.Packet) bool { return p.Children[0].Data.String() == oid })
}

// dirSync tells of the objects that match now and of which an attribute that is asked for changed since the cookie.
func (d *domainActor) dirSync(c *actorConn, id int64, request *ber.Packet, cookie string) {
	since := 0
	_, _ = fmt.Sscan(cookie, &since) // no cookie is the beginning
	deleted := directory.Entry{DN: "CN=Deleted Objects," + domainTop, Attributes: []directory.Attribute{
		{Name: "objectClass", Values: []string{"container"}}, {Name: "isDeleted", Values: []string{"TRUE"}}, {Name: "objectGUID", Values: []string{"0123456789ABCDEF"}},
	}}
	if since == 0 && matches(request.Children[6], deleted) {
		c.send(entryMessage(id, deleted))
	}
	for _, o := range d.objects {
		e := o.entry()
		told := slices.ContainsFunc(request.Children[7].Children, func(p *ber.Packet) bool { return o.changed[strings.ToLower(p.Data.String())] > since })
		if told && matches(request.Children[6], e) {
			c.send(entryMessage(id, e))
		}
	}
	more := int64(0)
	if d.endless {
		more = 1
	}
	c.send(dirSyncDone(id, more, fmt.Sprint(d.usn)))
}

// tree is what a read of everything would find now, of what the schema's filter matches.
func (d *domainActor) tree(t testing.TB, schema *directory.Schema) *directory.Snapshot {
	t.Helper()
	filter, err := goldap.CompileFilter(schema.Filter())
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var entries []directory.Entry
	for _, o := range d.objects {
		if e := o.entry(); matches(filter, e) {
			entries = append(entries, e)
		}
	}
	return treeOf(t, directory.MustParseDN(domainTop), schema, entries)
}

// reader is a source of the domain that reads everything once, and then never again within the time of a test.
func (d *domainActor) reader(t testing.TB, schema *directory.Schema) *Source {
	t.Helper()
	s, err := Open(Config{
		URL: "ldap://127.0.0.1", AllowClear: true, Base: directory.MustParseDN(domainTop), Schema: schema, PageSize: 3,
		Interval: time.Second, FullInterval: 1000 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.target.dial = d.dial
	return s
}
