package enrollment

import (
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// TestGatewaysHaveItInTheirCertificate lets machines join and renew that are, and are not, below the container or in the
// group of the gateways: certificates follow the directory, one late.
func TestGatewaysHaveItInTheirCertificate(t *testing.T) {
	o := newOffice(t)
	var err error
	if o.config.Gateway, err = ca.NewProfile(ca.Gateway, ca.ProfileConfig{Lifetime: 48 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	group := directory.MustParseDN("cn=gateways,dc=bank,dc=example")
	unit := directory.MustParseDN("ou=edge,dc=bank,dc=example")
	o.config.Gateways = []Rule{{Container: unit}, {Group: group}}
	above := directory.Container{UUID: directory.UUID{8}, DN: unit, Kind: directory.KindOf(unit)}
	edge := directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=edge1,ou=edge,dc=bank,dc=example"), Name: "edge1"}
	members := directory.Group{UUID: directory.UUID{9}, DN: group, Name: "gateways", Members: []directory.DN{sql1.DN}}
	ikeIntermediate := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}
	want := func(when string, issued ca.Issued, err error, gateway bool) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		named := slices.ContainsFunc(issued.Leaf.UnknownExtKeyUsage, ikeIntermediate.Equal)
		long := issued.Leaf.NotAfter.Sub(o.clock)
		if named != gateway || (long <= 48*time.Hour) != gateway {
			t.Errorf("%s: a certificate for %v, of a gateway: %t; want %t", when, long, named, gateway)
		}
	}
	o.put(above, sql1, edge)
	issued, err := o.Enroll(t.Context(), o.token(edge), o.request("edge1.bank.example"))
	want("below the container", issued, err, true)
	issued, err = o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example"))
	want("neither", issued, err, false)
	o.put(above, sql1, edge, members)
	issued, err = o.Renew(t.Context(), issued.Leaf, o.request("sql1.bank.example"))
	want("in the group", issued, err, true)
	o.put(above, sql1, edge)
	issued, err = o.Renew(t.Context(), issued.Leaf, o.request("sql1.bank.example"))
	want("no longer", issued, err, false)
}
