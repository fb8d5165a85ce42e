package kerberos

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/asnAppTag"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

const (
	realm   = "BANK.EXAMPLE"
	aes128  = 17
	aes256  = 18
	sha2128 = 19
	rc4     = 23
)

var (
	now     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sql1    = Principal{Components: []string{"host", "sql1.bank.example"}, Realm: realm}
	service = Principal{Components: []string{ServiceName, "controller.bank.example"}, Realm: realm}
)

// centre is a key distribution centre in memory. Its fields are what a test makes it do.
type centre struct {
	t        testing.TB
	client   Principal
	service  Principal
	sealedBy int32 // encryption type of the ticket
	session  int32 // encryption type of the session key
	version  int
	start    time.Time
	end      time.Time
	invalid  bool
	password string
}

func newCentre(t testing.TB) centre {
	return centre{t: t, client: sql1, service: service, sealedBy: aes256, session: aes256, version: 3, start: now.Add(-time.Hour), end: now.Add(time.Hour), password: "of the service"}
}

// table has the keys of the service.
func (c centre) table() *keytab.Keytab {
	c.t.Helper()
	k := keytab.New()
	if err := k.AddEntry(strings.Join(c.service.Components, "/"), c.service.Realm, c.password, now, uint8(c.version), c.sealedBy); err != nil {
		c.t.Fatal(err)
	}
	return k
}

func (c centre) keytab() Keytab {
	c.t.Helper()
	octets, err := c.table().Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := ParseKeytab(octets)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

// ticket makes a ticket as a key distribution centre does.
func (c centre) ticket() Ticket {
	c.t.Helper()
	set := types.NewKrbFlags()
	if c.invalid {
		types.SetFlag(&set, flags.Invalid)
	}
	name := types.PrincipalName{NameType: nametype.KRB_NT_PRINCIPAL, NameString: c.service.Components}
	t, key, err := messages.NewTicket(c.client.name(), c.client.Realm, name, c.service.Realm, set, c.table(), c.sealedBy, c.version, c.start, c.start, c.end, c.end)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.session != c.sealedBy {
		c.t.Fatal("the library makes session keys of the type of the ticket alone")
	}
	return Ticket{c.client, t, key}
}

func (c centre) acceptor() Acceptor {
	good := newCentre(c.t)
	good.sealedBy = c.sealedBy
	return Acceptor{Service: service, Keytab: good.keytab(), Realms: []string{realm}}
}

var (
	channel = [ExporterSize]byte{1, 2, 3}
	request = []byte("a certificate request")
)

func prove(t testing.TB, at time.Time, ticket Ticket) []byte {
	t.Helper()
	proof, err := Prove(at, ticket, channel, request)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func TestProofIsAccepted(t *testing.T) {
	for _, encryption := range []int32{aes128, aes256, sha2128} {
		c := newCentre(t)
		c.sealedBy, c.session = encryption, encryption
		for _, skew := range []time.Duration{0, MaxSkew - time.Second, -MaxSkew + time.Second} {
			got, err := c.acceptor().Verify(now, prove(t, now.Add(skew), c.ticket()), channel, request)
			if err != nil || !got.Equal(sql1) {
				t.Errorf("encryption type %d, skew %v: %v, error %v; want %v", encryption, skew, got, err, sql1)
			}
		}
	}
}

func TestProofIsRefused(t *testing.T) {
	good := newCentre(t)
	goodProof := prove(t, now, good.ticket())
	change := func(f func(*centre)) []byte {
		c := newCentre(t)
		f(&c)
		return prove(t, now, c.ticket())
	}
	otherChannel, files1 := channel, Principal{Components: []string{"host", "files1.bank.example"}, Realm: realm}
	otherChannel[31] = 1
	stolen := good.ticket()
	stolen.client = files1
	wrongKey := good.ticket()
	wrongKey.key = newCentre(t).ticket().key
	for _, c := range []struct {
		name    string
		proof   []byte
		channel [ExporterSize]byte
		request []byte
		want    error
	}{
		{"nothing", nil, channel, request, ErrMalformed},
		{"something else", []byte("AP-REQ"), channel, request, ErrMalformed},
		{"too long", make([]byte, MaxProof+1), channel, request, ErrMalformed},
		{"another request", goodProof, channel, []byte("a certificate request of another key"), ErrProof},
		{"another connection", goodProof, otherChannel, request, ErrProof},
		{"no request", goodProof, channel, nil, ErrProof},
		{"authenticator of another machine", prove(t, now, stolen), channel, request, ErrProof},
		{"authenticator without the session key", prove(t, now, wrongKey), channel, request, ErrProof},
		{"without a checksum", bare(t, good.ticket(), types.Checksum{}), channel, request, ErrProof},
		{"checksum without a key", bare(t, good.ticket(), types.Checksum{CksumType: 1, Checksum: []byte{0, 0, 0, 0}}), channel, request, ErrProof},
		{"ticket of another realm", change(func(c *centre) { c.client.Realm = "ELSEWHERE.EXAMPLE" }), channel, request, ErrRealm},
		{"ticket for another service", change(func(c *centre) { c.service.Components = []string{"host", "controller.bank.example"} }), channel, request, ErrService},
		{"ticket for a service of another realm", change(func(c *centre) { c.service.Realm = "ELSEWHERE.EXAMPLE" }), channel, request, ErrService},
		{"ticket that has ended", change(func(c *centre) { c.end = now.Add(-MaxSkew - time.Second) }), channel, request, ErrTicketTime},
		{"ticket that has not begun", change(func(c *centre) { c.start = now.Add(MaxSkew + time.Second) }), channel, request, ErrTicketTime},
		{"ticket that is not valid yet", change(func(c *centre) { c.invalid = true }), channel, request, ErrTicketTime},
		{"another version of the key", change(func(c *centre) { c.version = 4 }), channel, request, ErrKeyVersion},
		{"another key of the same version", change(func(c *centre) { c.password = "before" }), channel, request, ErrKeyVersion},
		{"old proof", prove(t, now.Add(-MaxSkew-time.Second), good.ticket()), channel, request, ErrClockSkew},
		{"proof of the future", prove(t, now.Add(MaxSkew+time.Second), good.ticket()), channel, request, ErrClockSkew},
		{"name with a slash in a part", change(func(c *centre) { c.client.Components = []string{"host/sql1.bank.example"} }), channel, request, ErrPrincipal},
		{"name without parts", change(func(c *centre) { c.client.Components = []string{} }), channel, request, ErrPrincipal},
	} {
		got, err := good.acceptor().Verify(now, c.proof, c.channel, c.request)
		if !errors.Is(err, c.want) || len(got.Components) != 0 {
			t.Errorf("%s: %v, error %v; want %v", c.name, got, err, c.want)
		}
	}
}

// bare makes a proof with any checksum, as other Kerberos services get it.
func bare(t testing.TB, ticket Ticket, sum types.Checksum) []byte {
	t.Helper()
	made, err := messages.NewAPReq(ticket.ticket, ticket.key, types.Authenticator{AVNO: 5, CRealm: ticket.client.Realm, CName: ticket.client.name(), CTime: now, Cksum: sum})
	if err != nil {
		t.Fatal(err)
	}
	octets, err := made.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// RC4 is refused wherever it can stand: in the ticket, in the session key, in a keytab.
func TestNothingButAES(t *testing.T) {
	weak := newCentre(t)
	weak.sealedBy, weak.session = rc4, rc4
	octets, err := weak.table().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseKeytab(octets); !errors.Is(err, ErrEncryption) {
		t.Errorf("keytab of RC4: %v, want ErrEncryption", err)
	}
	ticket := weak.ticket()
	if _, err := Prove(now, ticket, channel, request); !errors.Is(err, ErrEncryption) {
		t.Errorf("proof under a session key of RC4: %v, want ErrEncryption", err)
	}
	if _, err := NewTicket(sql1, ticket.ticket, ticket.key); !errors.Is(err, ErrEncryption) {
		t.Errorf("ticket with a session key of RC4: %v, want ErrEncryption", err)
	}
	if _, err := NewTicket(sql1, ticket.ticket, newCentre(t).ticket().key); !errors.Is(err, ErrEncryption) || !strings.Contains(err.Error(), "msDS-SupportedEncryptionTypes") {
		t.Errorf("ticket sealed with RC4, at the machine: %v, want ErrEncryption and what to do", err)
	}
	if _, err := newCentre(t).acceptor().Verify(now, bare(t, ticket, types.Checksum{}), channel, request); !errors.Is(err, ErrEncryption) {
		t.Errorf("ticket sealed with RC4: %v, want ErrEncryption", err)
	}
	// A ticket that is sealed with AES, whose session key is of RC4, from a centre that serves old clients.
	good := newCentre(t)
	mixed := good.ticket()
	key, _, err := good.table().GetEncryptionKey(service.name(), realm, good.version, aes256)
	if err != nil {
		t.Fatal(err)
	}
	if err := mixed.ticket.Decrypt(key); err != nil {
		t.Fatal(err)
	}
	part := mixed.ticket.DecryptedEncPart
	part.Key = ticket.key
	mixed.ticket = sealed(t, mixed.ticket, part, key)
	mixed.key = ticket.key
	if _, err := good.acceptor().Verify(now, bare(t, mixed, types.Checksum{}), channel, request); !errors.Is(err, ErrEncryption) {
		t.Errorf("session key of RC4 in a ticket of AES: %v, want ErrEncryption", err)
	}
}

// What is in a ticket decides, too: addresses, and realms on the way.
func TestTicketThatSaysMore(t *testing.T) {
	good := newCentre(t)
	key, _, err := good.table().GetEncryptionKey(service.name(), realm, good.version, aes256)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*messages.EncTicketPart, *Principal)
		want   error
	}{
		{"nothing", func(*messages.EncTicketPart, *Principal) {}, nil},
		{"addresses", func(p *messages.EncTicketPart, _ *Principal) {
			p.CAddr = types.HostAddresses{{AddrType: 2, Address: []byte{10, 0, 0, 1}}}
		}, ErrProof},
		{"another realm that is accepted", func(p *messages.EncTicketPart, who *Principal) {
			p.CRealm, who.Realm = "LAB.EXAMPLE", "LAB.EXAMPLE"
		}, nil},
		{"through a third realm", func(p *messages.EncTicketPart, who *Principal) {
			p.CRealm, who.Realm = "LAB.EXAMPLE", "LAB.EXAMPLE"
			p.Transited = messages.TransitedEncoding{TRType: 1, Contents: []byte("BETWEEN.EXAMPLE")}
		}, ErrRealm},
		{"through a third realm, checked", func(p *messages.EncTicketPart, who *Principal) {
			p.CRealm, who.Realm = "LAB.EXAMPLE", "LAB.EXAMPLE"
			p.Transited = messages.TransitedEncoding{TRType: 1, Contents: []byte("BETWEEN.EXAMPLE")}
			types.SetFlag(&p.Flags, flags.TransitedPolicyChecked)
		}, nil},
	} {
		ticket := good.ticket()
		if err := ticket.ticket.Decrypt(key); err != nil {
			t.Fatal(err)
		}
		part := ticket.ticket.DecryptedEncPart
		c.change(&part, &ticket.client)
		ticket.ticket = sealed(t, ticket.ticket, part, key)
		a := good.acceptor()
		a.Realms = append(a.Realms, "LAB.EXAMPLE")
		got, err := a.Verify(now, prove(t, now, ticket), channel, request)
		if !errors.Is(err, c.want) || c.want == nil && !got.Equal(ticket.client) {
			t.Errorf("%s: %v, error %v; want %v, error %v", c.name, got, err, ticket.client, c.want)
		}
	}
}

// sealed seals another content into a ticket.
func sealed(t testing.TB, ticket messages.Ticket, part messages.EncTicketPart, key types.EncryptionKey) messages.Ticket {
	t.Helper()
	octets := marshalPart(t, part)
	enc, err := crypto.GetEncryptedData(octets, key, 2, ticket.EncPart.KVNO)
	if err != nil {
		t.Fatal(err)
	}
	return messages.Ticket{TktVNO: ticket.TktVNO, Realm: ticket.Realm, SName: ticket.SName, EncPart: enc}
}

func TestNothingPrints(t *testing.T) {
	c := newCentre(t)
	ticket, table := c.ticket(), c.keytab()
	for _, v := range []any{ticket, table, &ticket, &table, c.acceptor()} {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		texts := []string{string(encoded)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		for _, text := range texts {
			for _, secret := range [][]byte{ticket.key.KeyValue, table.table.Entries[0].Key.KeyValue} {
				for _, form := range []string{"%v", "%x", "%s", "%d"} {
					if strings.Contains(strings.ToLower(text), strings.Trim(fmt.Sprintf(form, secret), "[]")) {
						t.Errorf("%T prints a key: %s", v, text)
					}
				}
			}
		}
	}
}

func TestNoStrictPrefixOfAProofCounts(t *testing.T) {
	c := newCentre(t)
	proof, a := prove(t, now, c.ticket()), c.acceptor()
	for n := range proof {
		if got, err := a.Verify(now, proof[:n], channel, request); err == nil {
			t.Errorf("%d octets of %d are accepted as of %v", n, len(proof), got)
		}
	}
}

func TestKeytabThatIsBroken(t *testing.T) {
	octets, err := newCentre(t).table().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for n := range octets {
		if k, err := ParseKeytab(octets[:n]); err == nil && len(k.Principals()) == 0 {
			t.Errorf("%d octets of %d give an empty keytab without an error", n, len(octets))
		}
	}
	if _, err := ParseKeytab(make([]byte, MaxKeytab+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v, want ErrMalformed", err)
	}
}

func TestPrincipals(t *testing.T) {
	for _, good := range []string{"host/sql1.bank.example@BANK.EXAMPLE", "SQL1$@BANK.EXAMPLE", "a/b/c@R"} {
		if p, err := ParsePrincipal(good); err != nil || p.String() != good {
			t.Errorf("%q: %v, error %v", good, p, err)
		}
	}
	for _, bad := range []string{"", "@", "host/sql1", "host/@R", "/x@R", "host//x@R", "a@b@c", `a\/b@R`, "a b@R", "a@", "a\x00@R", "ü@R", strings.Repeat("a", 2000) + "@R"} {
		if p, err := ParsePrincipal(bad); !errors.Is(err, ErrPrincipal) {
			t.Errorf("%q: %v, error %v; want ErrPrincipal", bad, p, err)
		}
	}
}

func marshalPart(t testing.TB, part messages.EncTicketPart) []byte {
	t.Helper()
	octets, err := asn1.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	return asn1tools.AddASNAppTag(octets, asnAppTag.EncTicketPart)
}
