package kerberos

import (
	"bytes"
	"errors"
	"testing"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// What is not sealed may be changed by anybody, and makes no difference to who is believed.
func FuzzVerify(f *testing.F) {
	c := newCentre(f)
	a := c.acceptor()
	f.Add(prove(f, now, c.ticket()))
	f.Add(bare(f, c.ticket(), types.Checksum{}))
	f.Fuzz(func(t *testing.T, proof []byte) {
		if got, err := a.Verify(now, proof, channel, request); err == nil && !got.Equal(sql1) {
			t.Errorf("accepted as of %v", got)
		}
	})
}

// A machine seals its authenticator itself, and may put anything there: it is believed to be nobody else.
func FuzzAuthenticator(f *testing.F) {
	c := newCentre(f)
	a, ticket := c.acceptor(), c.ticket()
	for _, proof := range [][]byte{prove(f, now, ticket), bare(f, ticket, types.Checksum{})} {
		var made messages.APReq
		if err := made.Unmarshal(proof); err != nil {
			f.Fatal(err)
		}
		inside, err := crypto.DecryptEncPart(made.EncryptedAuthenticator, ticket.key, keyusage.AP_REQ_AUTHENTICATOR)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(inside)
	}
	made, err := messages.NewAPReq(ticket.ticket, ticket.key, types.Authenticator{AVNO: 5, CRealm: realm, CName: sql1.name(), CTime: now})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, inside []byte) {
		proof := made
		var err error
		if proof.EncryptedAuthenticator, err = crypto.GetEncryptedData(inside, ticket.key, keyusage.AP_REQ_AUTHENTICATOR, 0); err != nil {
			t.Fatal(err)
		}
		octets, err := proof.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Verify(now, octets, channel, request); err == nil && !got.Equal(sql1) {
			t.Errorf("accepted as of %v", got)
		}
	})
}

// FuzzKeytab: a keytab that is read has keys of the lengths that its encryption types have, and its principals are written as
// they are read.
func FuzzKeytab(f *testing.F) {
	octets, err := newCentre(f).table().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(octets)
	// A hole that a removed key left (a negative length), and two keys.
	f.Add(bytes.Join([][]byte{octets[:2], {0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 0}, octets[2:], octets[2:]}, nil))
	f.Add([]byte{5, 2, 0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, content []byte) {
		k, err := ParseKeytab(content)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrEncryption) {
				t.Fatalf("refused with %v, want ErrMalformed or ErrEncryption", err)
			}
			return
		}
		if len(k.Table().Entries) == 0 {
			t.Fatal("a keytab without keys was accepted")
		}
		for _, e := range k.Table().Entries {
			if _, err := cipherOf(e.Key); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range k.Principals() {
			if again, err := ParsePrincipal(p.String()); err != nil || !again.Equal(p) {
				t.Fatalf("%q is read as %v, error %v", p.String(), again, err)
			}
		}
	})
}
