package ldap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// The controls that a server can offer.
const (
	controlSync    = "1.3.6.1.4.1.4203.1.9.1.1" // RFC 4533
	controlPaging  = goldap.ControlTypePaging   // RFC 2696
	controlDirSync = "1.2.840.113556.1.4.841"   // MS-ADTS 3.1.1.3.4.1.3
)

// tally is what one read of everything came to.
type tally struct {
	entries                      int
	machines, groups, containers int
	perClass                     map[string]int // machines by the class that makes them one
	without                      []string       // entries whose identity is hidden, the first few
	withoutCount                 int
	stated, named, addressed     int // machines with an account state, a DNS name, an address
	memberless                   int // groups without members
	hiddenMembers                int // of those, groups of a class that must have one
	nested, outside              int // members that are groups; that are not below the base
	problems                     []directory.Problem
	objects                      []directory.Object
}

// maxNamed bounds how many entries a finding names.
const maxNamed = 3

// content reads everything as the controller will, and looks at what each entry shows.
func (c *checker) content(ctx context.Context) bool {
	c.paging()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	began := c.now()
	t := tally{perClass: map[string]int{}}
	err := c.session.pages(c.Schema.Filter(), func(entry directory.Entry) error {
		c.tally(&t, entry)
		return nil
	}, c.Schema.Attributes())
	if err != nil {
		c.add(subjectRead, Failure, c.hintFor(err), "after %d entries: %v", t.entries, cause(err))
		return false
	}
	c.add(subjectRead, OK, "", "%d entries in %v: %d machines, %d groups, %d containers", t.entries, c.now().Sub(began).Round(time.Millisecond), t.machines, t.groups, t.containers)
	c.machines(&t)
	c.identities(&t)
	c.accounts(&t)
	c.groups(&t)
	c.tree(&t)
	c.changes(ctx)
	return true
}

func (c *checker) offers(control string) bool {
	return slices.Contains(c.root.GetEqualFoldAttributeValues("supportedControl"), control)
}

func (c *checker) paging() {
	if c.offers(controlPaging) {
		c.add(subjectPaging, OK, "", "the server pages results, %d entries at a time", c.PageSize)
		return
	}
	c.add(subjectPaging, Warning, "the server has to send everything in one answer: its size limit must be above the number of entries", "the server does not offer paged results (RFC 2696)")
}

func (c *checker) tally(t *tally, e directory.Entry) {
	t.entries++
	if len(e.Values(c.Schema.IdentityAttribute())) == 0 {
		if t.withoutCount++; len(t.without) < maxNamed {
			t.without = append(t.without, e.DN)
		}
		// What else there is to see is seen with an identity that lends itself.
		e.Attributes = append(slices.Clone(e.Attributes), c.lentIdentity(t.entries))
	}
	object, problems, err := c.Schema.Map(e)
	if err != nil {
		problems = append(problems, directory.Problem{DN: e.DN, Reason: err.Error()})
	}
	t.problems = append(t.problems, problems...)
	shows := func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return n != "" && len(e.Values(n)) > 0 })
	}
	switch o := object.(type) {
	case directory.Container:
		t.containers++
	case directory.Machine:
		t.machines++
		for _, class := range c.Schema.MachineClasses {
			if hasClass(e, class) {
				t.perClass[class]++
			}
		}
		if shows(c.Schema.AccountControl) || shows(c.Schema.LockFlags) {
			t.stated++
		}
		if o.DNSName != "" {
			t.named++
		}
		if len(o.Addresses) > 0 {
			t.addressed++
		}
	case directory.Group:
		t.groups++
		if !shows(c.Schema.GroupMember) {
			t.memberless++
			// X.521: both must have at least one member.
			if hasClass(e, "groupOfNames") || hasClass(e, "groupOfUniqueNames") {
				t.hiddenMembers++
			}
		}
	}
	if object != nil {
		t.objects = append(t.objects, object)
	}
}

// lentIdentity stands in for one that is hidden.
func (c *checker) lentIdentity(n int) directory.Attribute {
	value := fmt.Sprintf("ffffffff-ffff-ffff-ffff-%012x", n)
	switch c.Schema.Identity {
	case directory.ObjectGUID:
		value = fmt.Sprintf("%016x", n)
	case directory.NSUniqueID:
		value = fmt.Sprintf("ffffffff-ffffffff-ffffffff-%08x", n)
	case directory.EntryUUID:
	}
	return directory.Attribute{Name: c.Schema.IdentityAttribute(), Values: []string{value}}
}

func hasClass(e directory.Entry, class string) bool {
	return slices.ContainsFunc(e.Values("objectClass"), func(have string) bool { return strings.EqualFold(have, class) })
}

func (c *checker) machines(t *tally) {
	if t.machines == 0 {
		c.add(subjectMachines, Failure, "correct base, schema, mapping.machineClasses or mapping.machineFilter; "+c.classesHere(),
			"no entry below the base is a machine (object class %s%s)", strings.Join(c.Schema.MachineClasses, ", "), filtered(c.Schema.MachineFilter))
		return
	}
	var classes []string
	for _, class := range c.Schema.MachineClasses {
		if n := t.perClass[class]; n > 0 {
			classes = append(classes, fmt.Sprintf("%d %s", n, class))
		}
	}
	detail := fmt.Sprintf("%d (%s); %d with a DNS name, %d with addresses", t.machines, strings.Join(classes, ", "), t.named, t.addressed)
	c.add(subjectMachines, OK, "", "%s", detail)
}

func filtered(filter string) string {
	if filter == "" {
		return ""
	}
	return ", filter " + filter
}

// classesHere names the object classes that are most frequent below the base.
func (c *checker) classesHere() string {
	request := goldap.NewSearchRequest(c.Base.String(), goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 500, 0, false, "(objectClass=*)", []string{"objectClass"}, nil)
	result, err := c.conn.Search(request)
	if result == nil || err != nil && len(result.Entries) == 0 {
		return "nothing below the base can be seen"
	}
	counts := map[string]int{}
	for _, e := range result.Entries {
		for _, class := range e.GetEqualFoldAttributeValues("objectClass") {
			if !strings.EqualFold(class, "top") {
				counts[class]++
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	return "what is there has the object classes " + strings.Join(names[:min(len(names), 8)], ", ")
}

func (c *checker) identities(t *tally) {
	attribute := c.Schema.IdentityAttribute()
	if t.withoutCount == 0 {
		c.add(subjectIdentity, OK, "", "every entry shows its %s", attribute)
		return
	}
	c.add(subjectIdentity, Failure, c.grant(attribute), "%d of %d entries do not show their %s, such as %q: without it nobody knows what is the same machine after a move",
		t.withoutCount, t.entries, attribute, t.without[0])
}

func (c *checker) accounts(t *tally) {
	attributes := slices.Concat(c.Schema.AccountControl, c.Schema.LockFlags)
	switch {
	case len(attributes) == 0:
		c.add(subjectAccounts, Note, "", "no attribute is mapped that says whether a machine is disabled: none ever counts as disabled")
	case t.machines == 0:
	case t.stated == t.machines:
		c.add(subjectAccounts, OK, "", "every machine shows %s", strings.Join(attributes, " or "))
	case t.stated > 0:
		c.add(subjectAccounts, OK, "", "%d of %d machines show %s; the others count as enabled", t.stated, t.machines, strings.Join(attributes, " or "))
	default:
		known := c.knownAttributes(attributes)
		if len(known) == 0 {
			c.add(subjectAccounts, Note, "", "the server knows neither of %s: no machine ever counts as disabled", strings.Join(attributes, ", "))
			return
		}
		outcome := Warning
		if c.Schema.Identity == directory.ObjectGUID {
			outcome = Failure // every account has one (MS-ADTS 3.1.1.8.10)
		}
		c.add(subjectAccounts, outcome, c.grant(known...), "the server knows %s, but none of %d machines shows it: a machine that is disabled would not be told from the others", strings.Join(known, ", "), t.machines)
	}
}

// knownAttributes picks those that the server's schema (RFC 4512 4.2) has.
func (c *checker) knownAttributes(names []string) []string {
	at := c.root.GetEqualFoldAttributeValue("subschemaSubentry")
	if at == "" {
		return names
	}
	result, err := c.session.search(at, goldap.ScopeBaseObject, "(objectClass=*)", []string{"attributeTypes"})
	if err != nil || len(result.Entries) != 1 {
		return names // nobody knows: better a warning too many
	}
	var known []string
	types := strings.ToLower(strings.Join(result.Entries[0].GetEqualFoldAttributeValues("attributeTypes"), "\n"))
	for _, n := range names {
		if strings.Contains(types, "'"+strings.ToLower(n)+"'") {
			known = append(known, n)
		}
	}
	return known
}

func (c *checker) groups(t *tally) {
	if len(c.Schema.GroupClasses) == 0 {
		return
	}
	if t.groups == 0 {
		c.add(subjectGroups, Note, "", "no entry below the base is a group (object class %s%s): policies cannot be filtered by group", strings.Join(c.Schema.GroupClasses, ", "), filtered(c.Schema.GroupFilter))
		return
	}
	groups := map[string]bool{}
	for _, o := range t.objects {
		if g, ok := o.(directory.Group); ok {
			groups[g.DN.Key()] = true
		}
	}
	for _, o := range t.objects {
		g, ok := o.(directory.Group)
		for _, m := range g.Members {
			switch {
			case ok && groups[m.Key()]:
				t.nested++
			case ok && !m.IsDescendantOf(c.Base):
				t.outside++
			}
		}
	}
	c.add(subjectGroups, OK, "", "%d; %d memberships are of groups in groups, which are followed", t.groups, t.nested)
	switch {
	case t.hiddenMembers > 0 || t.memberless == t.groups && t.groups > 1:
		outcome := Warning
		if t.hiddenMembers > 0 {
			outcome = Failure
		}
		c.add(subjectMembers, outcome, c.grant(c.Schema.GroupMember...), "%d of %d groups show no member: who belongs to them is hidden from us", max(t.hiddenMembers, t.memberless), t.groups)
	case t.outside > 0:
		c.add(subjectMembers, Note, "", "%d members are not below the base; if machines are among them, raise the base, or add a source", t.outside)
	default:
		c.add(subjectMembers, OK, "", "members are shown")
	}
}

// tree puts the entries together as the controller will.
func (c *checker) tree(t *tally) {
	b := directory.NewBuilder(c.Base)
	for _, o := range t.objects {
		b.Add(o)
	}
	snapshot, err := b.Build()
	if err != nil {
		c.add(subjectTree, Failure, "correct the entries, narrow mapping.machineFilter, or add what is missing to mapping.containerClasses", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	if t.withoutCount == 0 {
		c.snapshot = snapshot
	}
	if n := len(t.problems); n > 0 {
		var first []string
		for _, p := range t.problems[:min(n, maxNamed)] {
			first = append(first, p.String())
		}
		c.add(subjectTree, Warning, "correct the entries, or narrow mapping.machineFilter", "%d entries or values cannot be used: %s", n, strings.Join(first, "; "))
		return
	}
	c.add(subjectTree, OK, "", "the entries are one tree, without duplicate names")
}

// changes finds out how the controller will be told of them.
func (c *checker) changes(ctx context.Context) {
	switch {
	case c.PollOnly:
		c.add(subjectChanges, Note, "", "polled every %v, as configured", c.Interval)
		return
	case c.Schema.Identity == directory.ObjectGUID:
		if c.offers(controlDirSync) {
			c.add(subjectChanges, OK, "", "the server offers DirSync; its right to it is told by: bailiwick directory status")
			return
		}
		c.add(subjectChanges, Note, "", "polled every %v", c.Interval)
		return
	case !c.offers(controlSync):
		c.add(subjectChanges, Warning, c.changesHint(), "the server does not offer content synchronization (RFC 4533): it is polled every %v", c.Interval)
		return
	}
	// One entry is enough to see whether it is permitted.
	err := c.tryPermitted(ctx)
	if err != nil {
		c.add(subjectChanges, Warning, c.changesHint(), "the server offers content synchronization (RFC 4533), but refuses it here: %v; it is polled every %v", err, c.Interval)
		return
	}
	c.add(subjectChanges, OK, "", "told at once by content synchronization (RFC 4533)")
}

// tryPermitted asks for the synchronization of the base entry alone, once.
func (c *checker) tryPermitted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request := goldap.NewSearchRequest(c.Base.String(), goldap.ScopeBaseObject, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"objectClass"}, nil)
	r := c.conn.Syncrepl(ctx, request, 16, goldap.SyncRequestModeRefreshOnly, nil, false)
	for r.Next() {
	}
	err := r.Err()
	var coded *goldap.Error
	if errors.As(err, &coded) && coded.ResultCode == goldap.LDAPResultSyncRefreshRequired {
		return nil
	}
	return err
}
