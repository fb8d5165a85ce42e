package enrollment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrMachineUnknown is wrapped when the machine is not in the directory.
	ErrMachineUnknown = errors.New("machine is not in the directory")
	// ErrMachineDisabled is wrapped when the machine's account is disabled in the directory.
	ErrMachineDisabled = errors.New("machine is disabled in the directory")
	// ErrNotReady is wrapped while the directory was never read.
	ErrNotReady = errors.New("the directory has not been read yet")
)

// Tokens is the store of join tokens.
type Tokens interface {
	CreateToken(ctx context.Context, t store.Token) error
	Token(ctx context.Context, id enroll.TokenID) (store.Token, error)
	RedeemToken(ctx context.Context, t store.Token, now time.Time, key pki.KeyID) error
}

// Authority is the CA.
type Authority interface {
	Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error)
	Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error)
	Pin() pki.KeyID
}

// Config is what a Desk works with.
type Config struct {
	Tokens    Tokens
	Authority Authority
	// Snapshot returns the directory in force, nil before the first.
	Snapshot func() *directory.Snapshot
	// Trust returns the trust bundle of the fleet.
	Trust func() trust.Bundle
	// TrustDomain is that of every certificate issued.
	TrustDomain string
	// Machine and Admin are the profiles of the certificates.
	Machine, Admin ca.Profile
	// Peer is the profile for what an administrator passes on to a peer that runs other software; the zero value means
	// Machine.
	Peer ca.Profile
	// Gateway is the profile of the machines that Gateways match, which may be none.
	Gateway  ca.Profile
	Gateways []Rule
	// Requests keeps the requests that came without a token, and Rules says what becomes of them; nil Requests takes none.
	Requests Requests
	Rules    Rules
	// Kerberos says which accounts are machines; nil takes none.
	Kerberos *KerberosRules
	// Holdings keeps the latest certificate of every machine.
	Holdings Holdings
	// RenewalGrace is how long after its end a certificate can still be renewed; 0 means DefaultRenewalGrace.
	RenewalGrace time.Duration
	// Supersede is told which certificate a machine held that enrolled anew, and the serial number of the one that it gets
	// now; nil tells nobody.
	Supersede func(ctx context.Context, former store.Holding, present string) error
	// Barred says why a person has to look at a machine before it enrols again, going by what it held last; "" says that nobody
	// has to, and nil never does.
	Barred func(store.Holding) string
	// LastRevoked is when a person last revoked a certificate of a machine; nil means never.
	LastRevoked func(machine pki.UUID) time.Time
	Now         func() time.Time
	Log         hclog.Logger
}

// A Desk answers requests for certificates. It is safe for concurrent use.
type Desk struct {
	config    Config
	machines  *meter[pki.UUID]
	hoards    *meter[hoard]
	tokens    *meter[enroll.TokenID]
	strangers *meter[struct{}]
	queue     queue
	gate      *gate
}

// New makes a Desk.
func New(c Config) *Desk {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.RenewalGrace == 0 {
		c.RenewalGrace = DefaultRenewalGrace
	}
	c.Rules = c.Rules.completed()
	return &Desk{
		config:    c,
		machines:  newMeter[pki.UUID](machineBurst, machineInterval),
		hoards:    newMeter[hoard](machineHoard, machineHoardInterval),
		tokens:    newMeter[enroll.TokenID](tokenBurst, tokenInterval),
		strangers: newMeter[struct{}](strangerBurst, strangerInterval),
		gate:      newGate(maxIssuing, maxWaiting),
	}
}

// Identity returns the identity that the entry of a machine gives it. A machine whose entry has no DNS name gets its
// short name in the trust domain.
func Identity(trustDomain string, m directory.Machine) (pki.Identity, error) {
	name := m.DNSName
	if name == "" {
		name = m.Name + "." + trustDomain
	}
	id, err := pki.NewIdentity(trustDomain, pki.UUID(m.UUID), name)
	if err != nil {
		return pki.Identity{}, fmt.Errorf("entry %q: %w", m.DN, err)
	}
	return id, nil
}

// IssueAdministrator issues an administrator's certificate. Whoever calls it decided that the caller may have one.
func (d *Desk) IssueAdministrator(ctx context.Context, account string, csr []byte) (ca.Issued, error) {
	subject, err := pki.NewAdministrator(d.config.TrustDomain, account)
	if err != nil {
		return ca.Issued{}, err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	prepared, err := d.config.Authority.Prepare(d.config.Now(), d.config.Admin, request, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	issued, err := d.config.Authority.Issue(ctx, prepared)
	if err != nil {
		return ca.Issued{}, err
	}
	d.config.Log.Warn("administrator certificate issued", "account", account, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return issued, nil
}

// Pin is the key id of the root: what machines without a trust bundle know a controller by.
func (d *Desk) Pin() pki.KeyID { return d.config.Authority.Pin() }
