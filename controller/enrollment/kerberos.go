package enrollment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

var (
	// ErrKerberosClosed is wrapped where the configuration takes no Kerberos accounts.
	ErrKerberosClosed = errors.New("this controller takes no Kerberos accounts")
	// ErrKeytab stands for an error that its log tells.
	ErrKeytab = errors.New("the controller cannot use its keytab; its log has the reason")
	// ErrBarred is wrapped when a machine whose certificate was revoked asks without anybody having looked at it.
	ErrBarred = errors.New("somebody has to let this machine in again")
	// ErrAccount is wrapped when a principal is not that of exactly one machine of the directory.
	ErrAccount = errors.New("the account is not that of one machine")
)

// AccountForm is how the machines of a realm are called.
type AccountForm int

// The forms of accounts. A realm has one, because whoever may make accounts of the other form could pass for a machine.
const (
	// HostAccounts are host/DNSNAME@REALM, as with MIT Kerberos, Heimdal and FreeIPA.
	HostAccounts AccountForm = iota + 1
	// ComputerAccounts are NAME$@REALM, as with Active Directory and Samba: NAME$ is the sAMAccountName.
	ComputerAccounts
)

// String returns the name of the form in the configuration.
func (f AccountForm) String() string {
	switch f {
	case HostAccounts:
		return "host"
	case ComputerAccounts:
		return "computer"
	}
	return fmt.Sprintf("AccountForm(%d)", int(f))
}

// A Realm is one whose machines may enrol.
type Realm struct {
	Name     string
	Accounts AccountForm
	// Container is above all machines of the realm; the zero value is the whole directory.
	Container directory.DN
}

// KerberosRules say which accounts are machines.
type KerberosRules struct {
	// Service is the principal of the controllers.
	Service kerberos.Principal
	// Keytab returns their keys as they are now: passwords change while a controller runs.
	Keytab func() (kerberos.Keytab, error)
	Realms []Realm
}

// accepts are the names of the realms.
func (r *KerberosRules) accepts() []string {
	var names []string
	for _, realm := range r.Realms {
		names = append(names, realm.Name)
	}
	return names
}

// machineOf finds the one machine whose account a principal is. It never takes the next best: neither another form of name,
// nor a name that two entries have.
func (r *KerberosRules) machineOf(s *directory.Snapshot, trustDomain string, p kerberos.Principal) (directory.Machine, error) {
	for _, realm := range r.Realms {
		if realm.Name != p.Realm {
			continue
		}
		m, err := realm.machineOf(s, trustDomain, p)
		if err != nil {
			return directory.Machine{}, err
		}
		if !realm.Container.IsZero() && !m.DN.IsDescendantOf(realm.Container) {
			return directory.Machine{}, fmt.Errorf("entry %q is not below %q, where the machines of the realm %s are: %w", m.DN, realm.Container, realm.Name, ErrAccount)
		}
		return m, nil
	}
	return directory.Machine{}, fmt.Errorf("principal %v: %w", p, kerberos.ErrRealm)
}

func (r Realm) machineOf(s *directory.Snapshot, trustDomain string, p kerberos.Principal) (directory.Machine, error) {
	refuse := func(why string) (directory.Machine, error) {
		return directory.Machine{}, fmt.Errorf("principal %v: %s: %w", p, why, ErrAccount)
	}
	switch c := p.Components; {
	case r.Accounts == ComputerAccounts && len(c) == 1 && len(c[0]) > 1 && strings.HasSuffix(c[0], "$"):
		name := strings.TrimSuffix(c[0], "$")
		m, ok := s.MachineByName(name)
		if !ok || !strings.EqualFold(m.Name, name) {
			return refuse("no machine has this name")
		}
		return m, nil
	case r.Accounts == HostAccounts && len(c) == 2 && c[0] == "host":
		name := strings.ToLower(c[1])
		m, ok := machineCalled(s, name)
		if !ok || !isCalled(trustDomain, m, name) {
			return refuse("no machine has this DNS name")
		}
		// An entry without a DNS name has its short name in the trust domain, which another entry can have for its DNS name.
		label, _, _ := strings.Cut(name, ".")
		if other, ok := s.MachineByName(label); ok && other.UUID != m.UUID && isCalled(trustDomain, other, name) {
			return refuse(fmt.Sprintf("two machines have this DNS name, %q and %q", m.DN, other.DN))
		}
		return m, nil
	}
	return refuse(fmt.Sprintf("accounts of machines have the form %v in the realm %s", r.Accounts, r.Name))
}

func isCalled(trustDomain string, m directory.Machine, name string) bool {
	id, err := Identity(trustDomain, m)
	return err == nil && id.DNSName() == name
}

// An accountClaim is a proof of a machine's Kerberos account, which was verified.
type accountClaim struct {
	desk      *Desk
	uuid      pki.UUID
	principal kerberos.Principal
}

func (c accountClaim) machine() pki.UUID { return c.uuid }

// admits refuses a machine whose certificate was revoked: its account proves who it is, and not in whose hands. The proof is
// over the request itself, which leaves nothing to compare.
func (c accountClaim) admits(ctx context.Context, _ *enroll.Request, present pki.Identity) error {
	held, err := c.desk.config.Holdings.Holding(ctx, c.uuid)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && c.desk.config.Barred == nil:
		return nil
	case err != nil:
		return err
	}
	if reason := c.desk.config.Barred(held); reason != "" {
		return fmt.Errorf("certificate %s of %v was revoked (%s): %w", held.Serial, present, reason, ErrBarred)
	}
	return nil
}

// spend has nothing to use up: the proof counts on one connection and for one key, and whoever could make it can make more.
func (c accountClaim) spend(context.Context, pki.KeyID) error { return nil }

func (c accountClaim) granted() time.Time { return time.Time{} }

func (c accountClaim) String() string { return "Kerberos account " + c.principal.String() }

// ServicePrincipal is for which service machines with a Kerberos account need a ticket.
func (d *Desk) ServicePrincipal() (kerberos.Principal, error) {
	if d.config.Kerberos == nil {
		return kerberos.Principal{}, ErrKerberosClosed
	}
	return d.config.Kerberos.Service, nil
}

// EnrollAccount answers a join with a proof of a Kerberos account, over the connection that has the given tls-exporter.
func (d *Desk) EnrollAccount(ctx context.Context, proof []byte, exporter [kerberos.ExporterSize]byte, csr []byte) (ca.Issued, error) {
	rules, now := d.config.Kerberos, d.config.Now()
	if rules == nil {
		return ca.Issued{}, ErrKerberosClosed
	}
	// Until the proof was looked at, its sender is one of all.
	if err := d.strangers.take(now, struct{}{}, "whoever has neither token nor certificate"); err != nil {
		return ca.Issued{}, err
	}
	keytab, err := rules.Keytab()
	if err != nil {
		d.config.Log.Error("the keytab of the controllers' service cannot be used, so no machine joins with a Kerberos account", "error", err)
		return ca.Issued{}, ErrKeytab
	}
	// 1. The proof.
	principal, err := kerberos.Acceptor{Service: rules.Service, Keytab: keytab, Realms: rules.accepts()}.Verify(now, proof, exporter, csr)
	if err != nil {
		return ca.Issued{}, err
	}
	snapshot := d.config.Snapshot()
	if snapshot == nil {
		return ca.Issued{}, ErrNotReady
	}
	m, err := rules.machineOf(snapshot, d.config.TrustDomain, principal)
	if err != nil {
		return ca.Issued{}, err
	}
	return d.authorize(ctx, accountClaim{desk: d, uuid: pki.UUID(m.UUID), principal: principal}, csr)
}

// ServicePrincipal implements nodev1.EnrollmentServiceServer.
func (s *Service) ServicePrincipal(ctx context.Context, _ *nodev1.ServicePrincipalRequest) (*nodev1.ServicePrincipalResponse, error) {
	principal, err := s.desk.ServicePrincipal()
	if err != nil {
		return nil, s.refuse(ctx, "a machine wants to join with its Kerberos account", err)
	}
	return &nodev1.ServicePrincipalResponse{Principal: principal.String()}, nil
}

// enrollAccount answers EnrollRequest.kerberos.
func (s *Service) enrollAccount(ctx context.Context, r *nodev1.EnrollRequest) (*nodev1.EnrollResponse, error) {
	if r.GetToken() != "" {
		return nil, status.Error(codes.InvalidArgument, "the request shows a join token and a Kerberos account; show one of them")
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "connection without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, status.Error(codes.Internal, "connection without TLS")
	}
	exporter, err := kerberos.Exporter(&info.State)
	if err != nil {
		return nil, s.refuse(ctx, "a machine shows its Kerberos account", err)
	}
	issued, err := s.desk.EnrollAccount(ctx, r.GetKerberos(), exporter, r.GetCsr())
	if err != nil {
		return nil, s.refuse(ctx, "a machine shows its Kerberos account", err)
	}
	return &nodev1.EnrollResponse{Chain: issued.Chain(), TrustBundle: s.desk.config.Trust().Append(nil)}, nil
}
