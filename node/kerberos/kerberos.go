// Package kerberos gets the machine a ticket for the controller, with the keytab that the machine has as a member of a
// realm. It owns the conversation with the key distribution centre and leaves the proof that is made of the ticket to
// pki/kerberos.
//
// Its invariants: keys stay in the memory of one call, a keytab that others can read is refused, and nothing but AES is
// asked for, whatever krb5.conf allows.
package kerberos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
)

// Where Debian and most others keep the machine's keytab and the settings of Kerberos.
const (
	DefaultKeytab = "/etc/krb5.keytab"
	DefaultConfig = "/etc/krb5.conf"
)

var (
	// ErrAccount is wrapped when it is not clear as which account the machine shall prove itself.
	ErrAccount = errors.New("no single machine account")
	// ErrTicket is wrapped when the key distribution centre gave no ticket.
	ErrTicket = errors.New("no Kerberos ticket")
)

// Settings say where the machine's account is.
type Settings struct {
	// Keytab and Config are paths; empty ones are DefaultKeytab and DefaultConfig.
	Keytab, Config string
	// Principal is the account, NAME@REALM; empty takes the one that the keytab has, "NAME$" before "host/NAME".
	Principal string
}

// An Account is the machine's account in its realm.
type Account struct {
	principal kerberos.Principal
	hostName  string
	keytab    kerberos.Keytab
	config    *config.Config
	settings  Settings
}

// Open reads keytab and configuration. It asks nobody.
func Open(s Settings) (*Account, error) {
	if s.Keytab == "" {
		s.Keytab = DefaultKeytab
	}
	if s.Config == "" {
		s.Config = DefaultConfig
	}
	content, err := statefile.Read(s.Keytab, kerberos.MaxKeytab)
	if err != nil {
		return nil, fmt.Errorf("read the machine's keytab: %w", err)
	}
	keytab, err := kerberos.ParseKeytab(content)
	clear(content)
	if err != nil {
		return nil, fmt.Errorf("the machine's keytab %s: %w", s.Keytab, err)
	}
	principal, err := choose(keytab.Principals(), s.Principal)
	if err != nil {
		return nil, fmt.Errorf("the machine's keytab %s: %w", s.Keytab, err)
	}
	c, err := config.Load(s.Config)
	if err != nil {
		return nil, fmt.Errorf("read the settings of Kerberos: %w; give a file without what is not understood with --krb5-conf", err)
	}
	strengthen(c)
	return &Account{principal, hostName(keytab.Principals(), principal), keytab, c, s}, nil
}

// strengthen takes from a configuration what is weak, and what would bind tickets to addresses.
func strengthen(c *config.Config) {
	types := kerberos.EncryptionTypes()
	c.LibDefaults.AllowWeakCrypto = false
	c.LibDefaults.DefaultTktEnctypeIDs, c.LibDefaults.DefaultTGSEnctypeIDs, c.LibDefaults.PermittedEnctypeIDs = types, types, types
	c.LibDefaults.NoAddresses = true
	c.LibDefaults.Forwardable, c.LibDefaults.Proxiable = false, false
}

// choose finds the account of the machine among the principals of its keytab: the one that was asked for; or the only
// "NAME$", which domain controllers know it by; or the only "host/NAME".
func choose(all []kerberos.Principal, asked string) (kerberos.Principal, error) {
	if asked != "" {
		p, err := kerberos.ParsePrincipal(asked)
		if err != nil {
			return kerberos.Principal{}, err
		}
		if !slices.ContainsFunc(all, p.Equal) {
			return kerberos.Principal{}, fmt.Errorf("it has no key of AES of %v, only of %v: %w", p, all, ErrAccount)
		}
		return p, nil
	}
	var accounts, hosts []kerberos.Principal
	for _, p := range all {
		switch {
		case len(p.Components) == 1 && strings.HasSuffix(p.Components[0], "$"):
			accounts = append(accounts, p)
		case len(p.Components) == 2 && p.Components[0] == "host":
			hosts = append(hosts, p)
		}
	}
	switch {
	case len(accounts) == 1:
		return accounts[0], nil
	case len(accounts) == 0 && len(hosts) == 1:
		return hosts[0], nil
	}
	return kerberos.Principal{}, fmt.Errorf("it has keys of %v; say with --principal which one this machine is: %w", all, ErrAccount)
}

// Principal is the account.
func (a *Account) Principal() kerberos.Principal { return a.principal }

// HostName is the DNS name of the machine as its keytab has it; "" where it does not tell.
func (a *Account) HostName() string { return a.hostName }

// hostName is the full name in the account's principal. "NAME$" has none, and "host/NAME" may have the short one: but where the
// machine joined a domain, the keytab also has the account's other names, among them "host/NAME" with the full one.
func hostName(all []kerberos.Principal, account kerberos.Principal) string {
	if len(account.Components) == 2 && strings.Contains(account.Components[1], ".") {
		return strings.ToLower(account.Components[1])
	}
	found := ""
	for _, p := range all {
		if len(p.Components) != 2 || !strings.EqualFold(p.Components[0], "host") || p.Realm != account.Realm || !strings.Contains(p.Components[1], ".") {
			continue
		}
		switch name := strings.ToLower(p.Components[1]); found {
		case "", name:
			found = name
		default:
			return "" // two names, and nobody says which
		}
	}
	return found
}

// Ticket gets a ticket for the service. Key distribution centres that do not answer are left after 5 s each, or when ctx ends.
func (a *Account) Ticket(ctx context.Context, service kerberos.Principal) (kerberos.Ticket, error) {
	type answer struct {
		ticket kerberos.Ticket
		err    error
	}
	// The library knows no context. What it still waits for ends by itself, and is forgotten.
	answers := make(chan answer, 1)
	go func() {
		ticket, err := a.ask(service)
		answers <- answer{ticket, err}
	}()
	select {
	case got := <-answers:
		return got.ticket, got.err
	case <-ctx.Done():
		return kerberos.Ticket{}, fmt.Errorf("get %v a ticket for %v: %w: gave up waiting for the key distribution centres of the realms, by %s: %w",
			a.principal, service, ErrTicket, a.settings.Config, ctx.Err())
	}
}

// ask is Ticket for as long as it takes.
func (a *Account) ask(service kerberos.Principal) (kerberos.Ticket, error) {
	c := *a.config
	c.DomainRealm = config.DomainRealm{}
	if len(service.Components) == 2 {
		// The controller said in which realm its service is.
		c.DomainRealm[service.Components[1]] = service.Realm
	}
	// Domain controllers refuse requests that offer FAST (RFC 6113) without using it.
	cl := client.NewWithKeytab(strings.Join(a.principal.Components, "/"), a.principal.Realm, a.keytab.Table(), &c, client.DisablePAFXFAST(true))
	defer cl.Destroy()
	if err := cl.Login(); err != nil {
		return kerberos.Ticket{}, a.explain(fmt.Sprintf("log in to the realm %s as %v", a.principal.Realm, a.principal), err)
	}
	ticket, key, err := cl.GetServiceTicket(strings.Join(service.Components, "/"))
	if err != nil {
		return kerberos.Ticket{}, a.explain(fmt.Sprintf("get %v a ticket for %v", a.principal, service), err)
	}
	return kerberos.NewTicket(a.principal, ticket, key)
}

// explain says what to do about an error of a key distribution centre. The library keeps the code in the text alone.
func (a *Account) explain(attempt string, err error) error {
	text, hint := err.Error(), ""
	for _, known := range []struct{ code, hint string }{
		{"KRB_AP_ERR_SKEW", "set this machine's clock, which differs from that of the key distribution centre by more than 5 minutes"},
		{"KDC_ERR_C_PRINCIPAL_UNKNOWN", "the realm has no such account: was it deleted or renamed? see klist -k " + a.settings.Keytab},
		{"KDC_ERR_S_PRINCIPAL_UNKNOWN", "the realm does not know the controller's service; make its principal, as the controller's documentation on enrolment says"},
		{"KDC_ERR_PREAUTH_FAILED", "the keys in " + a.settings.Keytab + " are not those of the account any more: its password has changed since; make the keytab anew"},
		{"KDC_ERR_CLIENT_REVOKED", "the account is disabled or locked"},
		{"KDC_ERR_ETYPE_NOSUPP", "the realm has no key of AES for the machine's account or for the controller's; nothing weaker is asked for"},
		{"matching key not found in keytab", "the keytab has no key of the type that the realm wants; make it anew with keys of AES"},
		{"no KDCs defined", "name the realm's key distribution centres in " + a.settings.Config + ", or set dns_lookup_kdc = true"},
	} {
		if strings.Contains(text, known.code) {
			hint = "; " + known.hint
			break
		}
	}
	return fmt.Errorf("%s: %w: %s%s", attempt, ErrTicket, text, hint)
}
