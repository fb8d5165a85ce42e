package kerberos

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/crypto/etype"
	"github.com/jcmturner/gokrb5/v8/iana"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// MaxSkew is how far the clocks of machine and controller may be apart (RFC 4120 1.3).
const MaxSkew = 5 * time.Minute

// MaxProof bounds a proof, in octets: a ticket of Active Directory for an account in a thousand groups fits.
const MaxProof = 64 << 10

// A Ticket is a ticket for the service of the controllers, with its session key. It does not print.
type Ticket struct {
	client Principal
	ticket messages.Ticket
	key    types.EncryptionKey
}

// NewTicket takes what the library got from a key distribution centre. Errors wrap ErrEncryption.
func NewTicket(client Principal, ticket messages.Ticket, key types.EncryptionKey) (Ticket, error) {
	if _, err := cipherOf(key); err != nil {
		return Ticket{}, fmt.Errorf("session key of the ticket of %v: %w", client, err)
	}
	// Domain controllers choose by what the account of the service says of itself, not by what was asked for.
	if _, ok := keySizes[ticket.EncPart.EType]; !ok {
		return Ticket{}, fmt.Errorf("ticket for %s is sealed with encryption type %d; the account of the controllers' service needs keys of AES, "+
			"in Active Directory the value 24 in msDS-SupportedEncryptionTypes, and its keytab made anew after that: %w", ticket.SName.PrincipalNameString(), ticket.EncPart.EType, ErrEncryption)
	}
	return Ticket{client, ticket, key}, nil
}

const redactedTicket = "Kerberos ticket [redacted]"

// String returns "Kerberos ticket [redacted]".
func (Ticket) String() string { return redactedTicket }

// GoString is String.
func (Ticket) GoString() string { return redactedTicket }

// Format writes String whatever the verb.
func (Ticket) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedTicket) }

// LogValue is String.
func (Ticket) LogValue() slog.Value { return slog.StringValue(redactedTicket) }

// MarshalText writes String.
func (Ticket) MarshalText() ([]byte, error) { return []byte(redactedTicket), nil }

// cipherOf finds the encryption type of a session key.
func cipherOf(key types.EncryptionKey) (etype.EType, error) {
	if size, ok := keySizes[key.KeyType]; !ok || len(key.KeyValue) != size {
		return nil, fmt.Errorf("type %d with %d octets: %w", key.KeyType, len(key.KeyValue), ErrEncryption)
	}
	return crypto.GetEtype(key.KeyType)
}

// bound is what the checksum of a proof covers: the application data of RFC 4120 5.5.1. exporter has a fixed length, so that
// no two pairs are written alike.
func bound(exporter [ExporterSize]byte, csr []byte) []byte {
	out := append([]byte("bailiwick enrolment with Kerberos v1\x00"), exporter[:]...)
	return append(out, csr...)
}

// Prove makes the proof that goes with a certificate request over the connection that has the given tls-exporter.
func Prove(now time.Time, t Ticket, exporter [ExporterSize]byte, csr []byte) ([]byte, error) {
	cipher, err := cipherOf(t.key)
	if err != nil {
		return nil, fmt.Errorf("proving to be %v: %w", t.client, err)
	}
	sum, err := cipher.GetChecksumHash(t.key.KeyValue, bound(exporter, csr), keyusage.AP_REQ_AUTHENTICATOR_CHKSUM)
	if err != nil {
		return nil, fmt.Errorf("proving to be %v: %w", t.client, err)
	}
	now = now.UTC()
	request, err := messages.NewAPReq(t.ticket, t.key, types.Authenticator{
		AVNO: iana.PVNO, CRealm: t.client.Realm, CName: t.client.name(), CTime: now.Truncate(time.Second), Cusec: now.Nanosecond() / 1000,
		Cksum: types.Checksum{CksumType: cipher.GetHashID(), Checksum: sum},
	})
	if err != nil {
		return nil, fmt.Errorf("proving to be %v: %w", t.client, err)
	}
	return request.Marshal()
}

// An Acceptor takes the proofs that are for one service.
type Acceptor struct {
	Service Principal
	Keytab  Keytab
	// Realms are those whose principals are accepted.
	Realms []string
}

// Verify returns who made the proof, for this request on this connection. The steps are those of RFC 4120 3.2.3; only the
// search for replays is not among them, because no proof counts on a second connection.
func (a Acceptor) Verify(now time.Time, proof []byte, exporter [ExporterSize]byte, csr []byte) (Principal, error) {
	if len(proof) > MaxProof {
		return Principal{}, fmt.Errorf("Kerberos proof of %d octets, more than %d: %w", len(proof), MaxProof, ErrMalformed)
	}
	var request messages.APReq
	if err := contained(func() error { return request.Unmarshal(proof) }); err != nil {
		return Principal{}, fmt.Errorf("Kerberos proof of %d octets is no AP-REQ: %w", len(proof), ErrMalformed)
	}
	ticket, err := a.open(now, request)
	if err != nil {
		return Principal{}, err
	}
	client, err := a.client(request, ticket)
	if err != nil {
		return Principal{}, err
	}
	cipher, err := cipherOf(ticket.Key)
	if err != nil {
		return Principal{}, fmt.Errorf("session key of the ticket of %v: %w", client, err)
	}
	authenticator, err := authenticator(request, ticket)
	if err != nil {
		return Principal{}, fmt.Errorf("proof of %v: %w", client, err)
	}
	if author, err := principalOf(authenticator.CName, authenticator.CRealm); err != nil || !author.Equal(client) {
		return Principal{}, fmt.Errorf("the ticket is of %v, the authenticator of somebody else: %w", client, ErrProof)
	}
	made := authenticator.CTime.Add(time.Duration(authenticator.Cusec) * time.Microsecond)
	if skew := now.Sub(made); skew.Abs() > MaxSkew {
		return Principal{}, fmt.Errorf("%v made its proof at %s, and here it is %s, more than %v apart: %w", client,
			made.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), MaxSkew, ErrClockSkew)
	}
	sum := authenticator.Cksum
	if sum.CksumType != cipher.GetHashID() ||
		!cipher.VerifyChecksum(ticket.Key.KeyValue, bound(exporter, csr), sum.Checksum, keyusage.AP_REQ_AUTHENTICATOR_CHKSUM) {
		return Principal{}, fmt.Errorf("proof of %v: %w", client, ErrProof)
	}
	return client, nil
}

// open decrypts the ticket with the key of the service, and says whether it counts now.
func (a Acceptor) open(now time.Time, request messages.APReq) (messages.EncTicketPart, error) {
	var none messages.EncTicketPart
	t := request.Ticket
	switch service, err := principalOf(t.SName, t.Realm); {
	case err != nil:
		return none, err
	case !service.Equal(a.Service):
		return none, fmt.Errorf("ticket for %v, but this is %v: %w", service, a.Service, ErrService)
	case types.IsFlagSet(&request.APOptions, flags.APOptionUseSessionKey):
		return none, fmt.Errorf("ticket is sealed with a session key (user to user), not with the key of %v: %w", a.Service, ErrService)
	}
	if err := checkSealed(t.EncPart); err != nil {
		return none, fmt.Errorf("ticket for %v: %w", a.Service, err)
	}
	if err := contained(func() error {
		key, _, err := a.Keytab.table.GetEncryptionKey(a.Service.name(), a.Service.Realm, t.EncPart.KVNO, t.EncPart.EType)
		if err != nil {
			return err
		}
		return t.Decrypt(key)
	}); err != nil {
		return none, fmt.Errorf("ticket for %v has key version %d and encryption type %d: %w", a.Service, t.EncPart.KVNO, t.EncPart.EType, ErrKeyVersion)
	}
	part := t.DecryptedEncPart
	start := part.StartTime
	if start.IsZero() {
		start = part.AuthTime // RFC 4120 5.3, starttime
	}
	if types.IsFlagSet(&part.Flags, flags.Invalid) || start.Sub(now) > MaxSkew || now.Sub(part.EndTime) > MaxSkew {
		return none, fmt.Errorf("ticket counts from %s to %s, and here it is %s: %w", start.UTC().Format(time.RFC3339),
			part.EndTime.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrTicketTime)
	}
	if len(part.CAddr) > 0 {
		return none, fmt.Errorf("ticket is bound to addresses, which are not looked at here; set noaddresses = true in krb5.conf: %w", ErrProof)
	}
	return part, nil
}

// client says whose ticket it is, if that realm is accepted and nobody between its realm and ours could have made it up.
func (a Acceptor) client(request messages.APReq, part messages.EncTicketPart) (Principal, error) {
	client, err := principalOf(part.CName, part.CRealm)
	switch {
	case err != nil:
		return Principal{}, err
	case !slices.Contains(a.Realms, client.Realm):
		return Principal{}, fmt.Errorf("ticket of %v: %w", client, ErrRealm)
	case client.Realm != request.Ticket.Realm && len(part.Transited.Contents) > 0 && !types.IsFlagSet(&part.Flags, flags.TransitedPolicyChecked):
		return Principal{}, fmt.Errorf("ticket of %v came through other realms, which %s did not check: %w", client, request.Ticket.Realm, ErrRealm)
	}
	return client, nil
}

// authenticator decrypts what the holder of the session key made.
func authenticator(request messages.APReq, part messages.EncTicketPart) (types.Authenticator, error) {
	sealed := request.EncryptedAuthenticator
	if err := checkSealed(sealed); err != nil {
		return types.Authenticator{}, err
	}
	if sealed.EType != part.Key.KeyType {
		return types.Authenticator{}, fmt.Errorf("authenticator of type %d under a session key of type %d: %w", sealed.EType, part.Key.KeyType, ErrEncryption)
	}
	if err := contained(func() error { return request.DecryptAuthenticator(part.Key) }); err != nil {
		return types.Authenticator{}, fmt.Errorf("the authenticator is not sealed with the session key of the ticket: %w", ErrProof)
	}
	return request.Authenticator, nil
}

// checkSealed looks at what is outside of a seal.
func checkSealed(d types.EncryptedData) error {
	// The confounder, the shortest checksum, and something between them.
	const least = 16 + 12
	switch _, ok := keySizes[d.EType]; {
	case !ok:
		return fmt.Errorf("type %d: %w", d.EType, ErrEncryption)
	case len(d.Cipher) <= least:
		return fmt.Errorf("%d octets are sealed, too few: %w", len(d.Cipher), ErrMalformed)
	}
	return nil
}
