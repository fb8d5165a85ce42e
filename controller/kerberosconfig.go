package controller

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
)

// KerberosConfig says which Kerberos accounts are machines of the fleet.
type KerberosConfig struct {
	// Principal is the service of all controllers of the fleet: bailiwick/NAME@REALM.
	Principal string `yaml:"principal"`
	// KeytabFile has its keys; only its owner may read it. It may be "credential:NAME", a credential of systemd.
	KeytabFile string `yaml:"keytabFile"`
	// Realms are those whose machines may enrol.
	Realms []RealmConfig `yaml:"realms"`
}

// RealmConfig is one realm.
type RealmConfig struct {
	Name string `yaml:"name"`
	// Accounts is the form of the machines' accounts: "host" for host/DNSNAME, "computer" for NAME$.
	Accounts string `yaml:"accounts"`
	// Container is the DN above all machines of the realm; needed where there are several realms.
	Container string `yaml:"container"`
}

func (v *validated) checkKerberos() error {
	c := v.Enrollment.Kerberos
	if c == nil {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("enrollment.kerberos: %w", err) }
	service, err := kerberos.ParsePrincipal(c.Principal)
	switch {
	case err != nil:
		return fail(fmt.Errorf("principal: %w", err))
	case len(service.Components) != 2 || service.Components[0] != kerberos.ServiceName:
		return fail(fmt.Errorf("principal %q, wanted %s/NAME@REALM: machines get tickets for no other service", c.Principal, kerberos.ServiceName))
	case c.KeytabFile == "":
		return fail(fmt.Errorf("keytabFile is missing: without the keys of %v no ticket can be read", service))
	case len(c.Realms) == 0:
		return fail(errors.New("realms is empty, so no machine could enrol; name at least one, with the form of its accounts"))
	}
	rules := &enrollment.KerberosRules{Service: service}
	rules.Keytab = func() (kerberos.Keytab, error) { return readKeytab(c.KeytabFile, service) }
	var errs []error
	for i, r := range c.Realms {
		realm, err := r.check(len(c.Realms) > 1)
		if err == nil {
			err = apart(realm, rules.Realms)
		}
		if err != nil {
			errs = append(errs, fail(fmt.Errorf("realms, entry %d: %w", i+1, err)))
			continue
		}
		rules.Realms = append(rules.Realms, realm)
	}
	if _, err := rules.Keytab(); err != nil {
		errs = append(errs, fail(err))
	}
	v.kerberos = rules
	return errors.Join(errs...)
}

// apart refuses a realm whose machines could be those of another.
func apart(realm enrollment.Realm, others []enrollment.Realm) error {
	for _, o := range others {
		switch {
		case o.Name == realm.Name:
			return fmt.Errorf("%q is named twice", realm.Name)
		case o.Container.Equal(realm.Container) || o.Container.IsDescendantOf(realm.Container) || realm.Container.IsDescendantOf(o.Container):
			return fmt.Errorf("the container %q overlaps with %q of the realm %s: a machine is of one realm", realm.Container, o.Container, o.Name)
		}
	}
	return nil
}

// check reads a realm. Where there are several, each has machines of its own: else an account of one could be taken for a
// machine of another that has the same name.
func (r RealmConfig) check(several bool) (enrollment.Realm, error) {
	realm := enrollment.Realm{Name: r.Name}
	if _, err := kerberos.ParsePrincipal("host@" + r.Name); err != nil {
		return realm, fmt.Errorf("name %q is not that of a realm, as BANK.EXAMPLE", r.Name)
	}
	forms := []enrollment.AccountForm{enrollment.HostAccounts, enrollment.ComputerAccounts}
	for _, f := range forms {
		if r.Accounts == f.String() {
			realm.Accounts = f
		}
	}
	switch {
	case realm.Accounts == 0:
		return realm, fmt.Errorf("accounts %q, wanted %q for host/DNSNAME (MIT, Heimdal, FreeIPA) or %q for NAME$ (Active Directory, Samba)", r.Accounts, forms[0], forms[1])
	case r.Container == "" && several:
		return realm, fmt.Errorf("the realm %s has no container: with several realms, each says below which DN its machines are", r.Name)
	case r.Container == "":
		return realm, nil
	}
	var err error
	realm.Container, err = directory.ParseDN(r.Container)
	return realm, err
}

// readKeytab reads the keys of the service.
func readKeytab(path string, service kerberos.Principal) (kerberos.Keytab, error) {
	content, err := readSecretOctets(path, "the keytab of the controllers' service (enrollment.kerberos.keytabFile)", kerberos.MaxKeytab+1)
	if err != nil {
		return kerberos.Keytab{}, err
	}
	defer clear(content)
	keytab, err := kerberos.ParseKeytab(content)
	if err != nil {
		return kerberos.Keytab{}, fmt.Errorf("%s: %w", path, err)
	}
	var held []string
	for _, p := range keytab.Principals() {
		if p.Equal(service) {
			return keytab, nil
		}
		held = append(held, p.String())
	}
	return kerberos.Keytab{}, fmt.Errorf("%s has no key of AES of %v, only of %s", path, service, strings.Join(held, ", "))
}
