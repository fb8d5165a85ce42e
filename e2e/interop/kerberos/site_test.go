package kerberos

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/identity"
	nodekerberos "github.com/bailiwick-net/bailiwick/node/kerberos"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// site is a fleet whose controller takes the accounts of a realm.
type site struct {
	t      *testing.T
	fleet  *controllertest.Fleet
	config string // the machines' krb5.conf
	pin    string
}

// start starts the controller. The directory has a machine called sql1.
func (s *site) start(principal, keytab string, accepted controller.RealmConfig) {
	s.t.Helper()
	s.fleet.Config.Enrollment.Kerberos = &controller.KerberosConfig{Principal: principal, KeytabFile: keytab, Realms: []controller.RealmConfig{accepted}}
	s.fleet.Start()
	token, err := enroll.ParseToken(s.fleet.Token("sql1"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.pin = token.Pin.String()
}

// join joins as a new machine that has the keytab, in the given name.
func (s *site) join(keytab, name string) (identity.Credentials, error) {
	s.t.Helper()
	return node.JoinByKerberos(s.t.Context(), node.Config{StateDir: filepath.Join(s.t.TempDir(), "state")}, node.JoinAccount{
		Controller: s.fleet.Address(), Pin: s.pin, Name: name,
		Account: nodekerberos.Settings{Keytab: keytab, Config: s.config},
	})
}

func (s *site) wantRefusal(err error, want ...string) {
	s.t.Helper()
	if err == nil {
		s.t.Errorf("it was let in; want it refused with %q", want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			s.t.Errorf("refused with %q, want %q in it", err, w)
		}
	}
}

// line is one TLS connection to the controller.
type line struct {
	client   nodev1.EnrollmentServiceClient
	service  kerberos.Principal
	exporter [kerberos.ExporterSize]byte
}

func (s *site) line() line {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.fleet.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // whoever captures proofs does not care
	})))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	l := line{client: nodev1.NewEnrollmentServiceClient(conn)}
	var p peer.Peer
	answer, err := l.client.ServicePrincipal(s.t.Context(), &nodev1.ServicePrincipalRequest{}, grpc.Peer(&p))
	if err != nil {
		s.t.Fatal(err)
	}
	if l.service, err = kerberos.ParsePrincipal(answer.GetPrincipal()); err != nil {
		s.t.Fatal(err)
	}
	info := p.AuthInfo.(credentials.TLSInfo)
	if l.exporter, err = kerberos.Exporter(&info.State); err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) request(name string) []byte {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := enroll.NewJoinRequest(key, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return request
}
