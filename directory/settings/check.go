package settings

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
)

// ErrInvalid is wrapped by every error of Check.
var ErrInvalid = errors.New("invalid directory settings")

// A FieldError is a mistake in one field.
type FieldError struct {
	// Field as "directory.sources[1].ldap.schema".
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns ErrInvalid and the cause.
func (e *FieldError) Unwrap() []error { return []error{ErrInvalid, e.Err} }

func wrong(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// The most that a guard lets pass: above, it would be as good as switched off.
const (
	maxShare = 0.5
	maxFloor = 100
)

// maxSources bounds the sources: each is a tree in memory and a connection.
const maxSources = 64

var sourceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Check checks the section, with all its mistakes. They are *FieldError, which wrap ErrInvalid, joined.
func (d Directory) Check() (Checked, error) {
	const field = "directory"
	given := 0
	for _, have := range []bool{d.LDIF != nil, d.LDAP != nil, len(d.Sources) > 0} {
		if have {
			given++
		}
	}
	if given != 1 {
		return Checked{}, wrong(field, "exactly one of ldif and ldap is needed, or a list of sources, as in --directory ldif:/etc/bailiwick/fleet.ldif")
	}
	if d.Grace < 0 {
		return Checked{}, wrong(field+".grace", "%v is negative", d.Grace)
	}
	limits, containers, err := d.Guard.check(field + ".guard")
	if err != nil {
		return Checked{}, err
	}
	sources, prefix := d.Sources, func(i int) string { return fmt.Sprintf("%s.sources[%d]", field, i) }
	if len(sources) == 0 {
		sources, prefix = []Source{{Name: DefaultName, LDIF: d.LDIF, LDAP: d.LDAP}}, func(int) string { return field }
	}
	if len(sources) > maxSources {
		return Checked{}, wrong(field+".sources", "%d sources, at most %d", len(sources), maxSources)
	}
	out := Checked{Removed: d.Removed}
	var errs []error
	for i, s := range sources {
		c := CheckedSource{Name: s.Name, Limits: limits, Containers: containers, Grace: d.Grace}
		if err := s.check(prefix(i), &c); err != nil {
			errs = append(errs, err)
		}
		if slices.ContainsFunc(out.Sources, func(o CheckedSource) bool { return o.Name == s.Name }) {
			errs = append(errs, wrong(prefix(i)+".name", "%q is the name of another source already", s.Name))
		}
		out.Sources = append(out.Sources, c)
	}
	for i, name := range d.Removed {
		switch {
		case !sourceName.MatchString(name):
			errs = append(errs, wrong(fmt.Sprintf("%s.removed[%d]", field, i), "%q cannot be the name of a source", name))
		case slices.ContainsFunc(out.Sources, func(o CheckedSource) bool { return o.Name == name }):
			errs = append(errs, wrong(fmt.Sprintf("%s.removed[%d]", field, i), "%q is both removed and a source", name))
		}
	}
	// A tree that is named twice would be read twice, and every machine of the second told as a duplicate.
	for i, s := range out.Sources {
		for _, o := range out.Sources[:i] {
			if s.LDAP != nil && o.LDAP != nil && s.LDAP.URL == o.LDAP.URL && s.LDAP.Base.Equal(o.LDAP.Base) || s.Path != "" && s.Path == o.Path && s.Base.Equal(o.Base) {
				errs = append(errs, wrong(prefix(i), "it reads what source %q reads: the same server and base", o.Name))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Checked{}, err
	}
	return out, nil
}

func (s Source) check(field string, c *CheckedSource) error {
	if !sourceName.MatchString(s.Name) {
		return wrong(field+".name", "%q is not of 1 to 63 lower-case letters, digits and inner hyphens", s.Name)
	}
	if s.Guard != nil {
		var err error
		if c.Limits, c.Containers, err = s.Guard.check(field + ".guard"); err != nil {
			return err
		}
	}
	if s.Grace != nil {
		if c.Grace = *s.Grace; c.Grace <= 0 {
			return wrong(field+".grace", "%v is not positive", c.Grace)
		}
	}
	switch {
	case (s.LDIF == nil) == (s.LDAP == nil):
		return wrong(field, "exactly one of ldif and ldap is needed")
	case s.LDAP != nil:
		l, err := s.LDAP.check(field + ".ldap")
		if err != nil {
			return err
		}
		c.LDAP, c.Base = &l, l.Base
		return s.LDAP.native(field+".ldap", c)
	case s.LDIF.Path == "":
		return wrong(field+".ldif.path", "a path is needed")
	case s.LDIF.Base != "":
		base, err := directory.ParseDN(s.LDIF.Base)
		if err != nil {
			return &FieldError{field + ".ldif.base", err}
		}
		c.Base = base
	}
	c.Path = s.LDIF.Path
	return nil
}

func (g Guard) check(field string) (guard.Limits, []guard.ContainerLimits, error) {
	l := guard.Default()
	for _, set := range []struct {
		given bool
		apply func()
	}{
		{g.Share != 0, func() { l.Share = g.Share }}, {g.Floor != 0, func() { l.Floor = g.Floor }},
		{g.Ceiling != 0, func() { l.Ceiling = g.Ceiling }}, {g.Window != 0, func() { l.Window = g.Window }},
	} {
		if set.given {
			set.apply()
		}
	}
	switch {
	case l.Share > maxShare:
		return l, nil, wrong(field+".share", "%v is above %v: the guard would be as good as switched off; announce single large changes with: bailiwick directory raise", l.Share, maxShare)
	case l.Floor > maxFloor:
		return l, nil, wrong(field+".floor", "%d is above %d: the guard would be as good as switched off; announce single large changes with: bailiwick directory raise", l.Floor, maxFloor)
	case l.Window > 0 && l.Window < time.Minute:
		return l, nil, wrong(field+".window", "%v is under a minute: many small changes would be a way around the guard", l.Window)
	}
	if err := l.Validate(); err != nil {
		return l, nil, &FieldError{field, err}
	}
	var containers []guard.ContainerLimits
	for i, c := range g.Containers {
		dn, err := directory.ParseDN(c.Container)
		if err != nil {
			return l, nil, &FieldError{fmt.Sprintf("%s.containers[%d].container", field, i), err}
		}
		limits := guard.ContainerLimits{Container: dn, Share: c.Share, Floor: c.Floor, Ceiling: c.Ceiling}
		if limits.Share == 0 {
			limits.Share = guard.Default().Share
		}
		containers = append(containers, limits)
		if err := guard.ValidateContainers(containers); err != nil {
			return l, nil, &FieldError{fmt.Sprintf("%s.containers[%d]", field, i), err}
		}
	}
	return l, containers, nil
}

func (l LDAP) check(field string) (ldap.Config, error) {
	base, err := directory.ParseDN(l.Base)
	if err != nil {
		return ldap.Config{}, &FieldError{field + ".base", err}
	}
	schema, ok := directory.PresetNamed(l.Schema)
	if !ok {
		return ldap.Config{}, wrong(field+".schema", "%q, wanted %s; mapping changes parts of one", l.Schema, directory.PresetNames())
	}
	if l.Mapping != nil {
		if err := l.Mapping.apply(field+".mapping", &schema); err != nil {
			return ldap.Config{}, err
		}
	}
	var bind ldap.Bind = ldap.Anonymous{}
	switch {
	case l.External && (l.BindDN != "" || l.PasswordFile != ""):
		return ldap.Config{}, wrong(field, "external, and bindDN with passwordFile, exclude each other")
	case l.External:
		bind = ldap.External{}
	case (l.BindDN == "") != (l.PasswordFile == ""):
		return ldap.Config{}, wrong(field, "bindDN needs passwordFile and the other way round")
	case l.BindDN != "":
		bind = ldap.Simple{DN: l.BindDN, PasswordFile: l.PasswordFile}
	}
	c := ldap.Config{
		URL: l.URL, Base: base, Schema: &schema, Bind: bind, StartTLS: l.StartTLS, CAFile: l.CAFile, ServerName: l.ServerName,
		ClientCert: l.ClientCert, ClientKey: l.ClientKey, AllowClear: l.AllowClear, PollOnly: l.PollOnly, Interval: l.Interval, Timeout: l.Timeout,
	}
	if err := c.Validate(); err != nil {
		return ldap.Config{}, &FieldError{field, err}
	}
	return c, nil
}

// native checks what is read of Group Policy.
func (l LDAP) native(field string, c *CheckedSource) error {
	for _, f := range []struct {
		name, value string
		into        *bool
	}{{"assignment", l.Assignment, &c.NativeAssignment}, {"sites", l.Sites, &c.NativeSites}} {
		switch f.value {
		case "", "bailiwick":
		case "native":
			if c.LDAP.Schema.Identity != directory.ObjectGUID {
				return wrong(field+"."+f.name, "native is for Active Directory: set schema to active-directory")
			}
			*f.into = true
		default:
			return wrong(field+"."+f.name, "%q, wanted native or bailiwick", f.value)
		}
	}
	c.NativeSites = c.NativeSites || c.NativeAssignment
	return nil
}

// description is an attribute or class by its short name or its number (RFC 4512 1.4), without options.
var description = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+)$`)

var identities = map[string]directory.IdentityForm{
	"entryUUID": directory.EntryUUID, "objectGUID": directory.ObjectGUID, "nsUniqueId": directory.NSUniqueID,
}

// apply lays the mapping over a schema.
func (m Mapping) apply(field string, s *directory.Schema) error {
	if m.Identity != "" {
		form, ok := identities[m.Identity]
		if !ok {
			return wrong(field+".identity", "%q, wanted entryUUID, objectGUID or nsUniqueId", m.Identity)
		}
		s.Identity = form
	}
	for _, l := range []struct {
		name     string
		given    *[]string
		into     *[]string
		required bool
	}{
		{"machineClasses", m.MachineClasses, &s.MachineClasses, true}, {"excludedClasses", m.ExcludedClasses, &s.ExcludedClasses, false},
		{"groupClasses", m.GroupClasses, &s.GroupClasses, false}, {"containerClasses", m.ContainerClasses, &s.ContainerClasses, true},
		{"machineName", m.MachineName, &s.MachineName, true}, {"machineDNSName", m.MachineDNSName, &s.MachineDNSName, false},
		{"machineAddress", m.MachineAddress, &s.MachineAddress, false}, {"groupName", m.GroupName, &s.GroupName, false},
		{"groupMember", m.GroupMember, &s.GroupMember, false}, {"accountControl", m.AccountControl, &s.AccountControl, false},
		{"lockFlags", m.LockFlags, &s.LockFlags, false},
	} {
		if l.given == nil {
			continue
		}
		for i, name := range *l.given {
			if !description.MatchString(name) {
				return wrong(fmt.Sprintf("%s.%s[%d]", field, l.name, i), "%q is not the name of an attribute or object class", name)
			}
		}
		if l.required && len(*l.given) == 0 {
			return wrong(field+"."+l.name, "at least one is needed")
		}
		*l.into = slices.Clone(*l.given)
	}
	if len(s.GroupClasses) > 0 && len(s.GroupMember) == 0 {
		return wrong(field+".groupMember", "groups need an attribute that lists their members; without groups, empty groupClasses")
	}
	for _, one := range []struct {
		name  string
		given *string
		into  *string
	}{{"primaryGroup", m.PrimaryGroup, &s.PrimaryGroup}, {"sid", m.SID, &s.SID}} {
		if one.given == nil {
			continue
		}
		if *one.given != "" && !description.MatchString(*one.given) {
			return wrong(field+"."+one.name, "%q is not the name of an attribute", *one.given)
		}
		*one.into = *one.given
	}
	for _, f := range []struct {
		name, given string
		into        *string
	}{{"machineFilter", m.MachineFilter, &s.MachineFilter}, {"groupFilter", m.GroupFilter, &s.GroupFilter}} {
		if f.given == "" {
			continue
		}
		if _, err := goldap.CompileFilter(f.given); err != nil {
			return wrong(field+"."+f.name, "%q is not a filter: %w", f.given, err)
		}
		*f.into = f.given
	}
	return nil
}
