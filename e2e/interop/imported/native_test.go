package imported

import (
	"slices"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// domain is a running Active Directory domain with a controller that takes its Group Policy for assignment.
type domain struct {
	*testing.T
	*samba.Server
	conn  *goldap.Conn
	fleet *controllertest.Fleet
}

func (d *domain) add(rdn, class string, attributes ...string) {
	d.Helper()
	if err := d.Add(d.conn, rdn, append([]string{"objectClass=" + class}, attributes...)...); err != nil {
		d.Fatal(err)
	}
}

func (d *domain) replace(dn, attribute, value string, controls ...goldap.Control) {
	d.Helper()
	m := goldap.NewModifyRequest(dn, controls)
	m.Replace(attribute, []string{value})
	if err := d.conn.Modify(m); err != nil {
		d.Fatalf("set %s of %s: %v", attribute, dn, err)
	}
}

func (d *domain) read(dn, attribute string, controls ...goldap.Control) []byte {
	d.Helper()
	r, err := d.conn.Search(goldap.NewSearchRequest(dn, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{attribute}, controls))
	if err != nil || len(r.Entries) != 1 {
		d.Fatalf("read %s of %s: %v", attribute, dn, err)
	}
	return r.Entries[0].GetRawAttributeValue(attribute)
}

// addGPO makes a Group Policy object that names an IPsec policy, as the editor of Windows does.
func (d *domain) addGPO(guid, name, policy string) (dn string) {
	d.Helper()
	rdn := "CN={" + guid + "},CN=Policies,CN=System"
	d.add(rdn, "groupPolicyContainer", "displayName="+name, "flags=0", "gPCFunctionalityVersion=2", "versionNumber=1",
		"gPCMachineExtensionNames=[{E437BC1C-AA7D-11D2-A382-00C04F991E27}{DEA8AFA0-CC85-11D0-9CE2-0080C7221EBD}]")
	d.add("CN=Machine,"+rdn, "container")
	d.add("CN=Microsoft,CN=Machine,"+rdn, "container")
	d.add("CN=Windows,CN=Microsoft,CN=Machine,"+rdn, "container")
	d.add("CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine,"+rdn, "ipsecPolicy", "ipsecOwnersReference=CN=ipsecPolicy{"+policy+"},CN=IP Security,CN=System,"+d.Base)
	return rdn + "," + d.Base
}

// restrict lets none but the named account apply a Group Policy object.
func (d *domain) restrict(gpo string, who descriptor.SID) {
	d.Helper()
	// Only the list of access rights (MS-ADTS 3.1.1.3.4.1.11).
	list := goldap.NewControlString("1.2.840.113556.1.4.801", true, "\x30\x03\x02\x01\x04")
	apply := descriptor.MustParseGUID("edacfd8f-ffb3-11d1-b41d-00a0c968f939")
	security, err := descriptor.Parse(d.read(gpo, "nTSecurityDescriptor", list))
	if err != nil {
		d.Fatal(err)
	}
	security.Access.Entries = slices.DeleteFunc(security.Access.Entries, func(e descriptor.Entry) bool {
		return e.Object == apply || e.Trustee == descriptor.AuthenticatedUsers && e.Mask&descriptor.ControlAccess != 0
	})
	security.Access.Entries = append(security.Access.Entries,
		descriptor.Entry{Type: descriptor.AccessAllowedObject, Mask: descriptor.ControlAccess, Object: apply, Trustee: who},
		descriptor.Entry{Type: descriptor.AccessAllowed, Mask: 0x00020094, Trustee: descriptor.AuthenticatedUsers})
	d.replace(gpo, "nTSecurityDescriptor", string(security.Append(nil)), list)
}

func (d *domain) explain(machine string) *adminv1.ExplainMachineResponse {
	d.Helper()
	r, err := d.fleet.Machines().ExplainMachine(d.Context(), &adminv1.ExplainMachineRequest{Machine: machine})
	if err != nil {
		d.Fatal(err)
	}
	return r
}

func (d *domain) wantPolicy(machine, policy string) {
	d.Helper()
	d.fleet.Eventually(machine+" has "+policy, func() bool { return d.explain(machine).GetMachine().GetPolicy() == policy })
}

// assignNatively has a domain assign its IPsec policies by Group Policy alone: links, their order, blocked inheritance,
// enforced links and security filtering decide, and nothing was retyped.
func assignNatively(t *testing.T, dc *samba.Server) {
	d := &domain{T: t, Server: dc}
	var err error
	if d.conn, err = dc.Dial(); err != nil {
		t.Fatal(err)
	}
	defer d.conn.Close()
	d.add("OU=Servers", "organizationalUnit")
	d.add("OU=Lonely", "organizationalUnit", "gPOptions=1")
	many := []string{"pc1,CN=Computers", "pc2,CN=Computers", "pc3,CN=Computers", "pc4,CN=Computers", "pc5,CN=Computers", "pc6,CN=Computers"}
	for _, m := range append(many, "sql,OU=Servers", "web,OU=Servers", "alone,OU=Lonely", "plain,CN=Computers") {
		name, _, _ := strings.Cut(m, ",")
		d.add("CN="+m, "computer", "sAMAccountName="+name+"$", "userAccountControl=4096")
	}
	d.add("CN=Secure", "group", "sAMAccountName=Secure", "member=CN=sql,OU=Servers,"+d.Base)
	request := d.addGPO("11111111-1111-1111-1111-111111111111", "Request", "72385230-70FA-11D1-864C-14A300000000")
	require := d.addGPO("22222222-2222-2222-2222-222222222222", "Require", "7238523C-70FA-11D1-864C-14A300000000")
	secure, err := descriptor.ParseSID(d.read("CN=Secure,"+d.Base, "objectSid"))
	if err != nil {
		t.Fatal(err)
	}
	d.restrict(require, secure)
	link := func(gpo, options string) string { return "[LDAP://" + gpo + ";" + options + "]" }
	d.replace("OU=Servers,"+d.Base, "gPLink", link(request, "0")+link(require, "0"))
	d.replace(d.Base, "gPLink", link(request, "0"))

	d.fleet = controllertest.New(t, "dn: dc=x\nobjectClass: domain\n")
	d.fleet.Config.TrustDomain = "lab.example"
	d.fleet.Config.Directory = controller.DirectoryConfig{LDAP: &controller.LDAPConfig{
		URL: dc.LDAPS, Base: dc.Base, Schema: "active-directory", CAFile: dc.CAFile, BindDN: dc.Administrator, PasswordFile: dc.PasswordFile,
		Interval: time.Second, Assignment: "native",
	}}
	d.fleet.Start()
	const request1, require1 = "lab.example: Server (Request Security)", "lab.example: Secure Server (Require Security)"
	d.wantPolicy("sql", require1) // order 1, and a member of the group
	d.wantPolicy("web", request1) // not in the group
	d.wantPolicy("plain", request1)
	d.wantPolicy("alone", "none") // blocks inheritance
	if got := d.explain("sql").GetCandidates()[0].GetLink(); got.GetDescription() != `link 1 of the Group Policy object "Require" {22222222-2222-2222-2222-222222222222}` || got.GetContainer() != "OU=Servers,"+d.Base {
		t.Errorf("the link that won is %v", got)
	}
	if g := d.groupPolicy(); g.GetLinks() != 3 || !g.GetAssignment() || g.GetLastError() != "" {
		t.Errorf("the status is %v; want 3 links", g)
	}

	// A link that is gone is gone here, and an administrator's document is not touched.
	d.fleet.Apply("apiVersion: bailiwick.net/v1alpha1\nkind: Container\ncontainer: \"OU=Lonely," + d.Base + "\"\nblockInheritance: false\n")
	d.wantPolicy("alone", request1)
	d.replace("OU=Servers,"+d.Base, "gPLink", link(request, "0"))
	d.fleet.Restart()
	d.wantPolicy("sql", request1)
	d.fleet.Eventually("the document of the administrator is told of", func() bool {
		return strings.Contains(strings.Join(d.groupPolicy().GetNotes(), " "), "written by somebody else")
	})
	d.wantPolicy("alone", request1)

	d.massChange(link(request, "1"), request1)

	// A Group Policy object whose pointer is gone says nothing any more: what was known stays.
	if err := d.conn.Del(goldap.NewDelRequest("CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine,"+request, nil)); err != nil {
		t.Fatal(err)
	}
	d.fleet.Restart()
	d.fleet.Eventually("the missing pointer is told of", func() bool { return strings.Contains(d.groupPolicy().GetLastError(), "cannot be seen") })
	d.wantPolicy("sql", request1)
}

func (d *domain) groupPolicy() *adminv1.GroupPolicy {
	d.Helper()
	status, err := d.fleet.Machines().GetDirectoryStatus(d.Context(), &adminv1.GetDirectoryStatusRequest{})
	if err != nil {
		d.Fatal(err)
	}
	return status.GetGroupPolicy()
}

// massChange has the link of the whole domain disabled: that takes the policy from more machines than may lose it at once,
// and waits for an administrator, also over a restart.
func (d *domain) massChange(disabled, policy string) {
	d.Helper()
	machines := []string{"pc1", "pc2", "pc3", "pc4", "pc5", "pc6"}
	for _, m := range machines {
		d.wantPolicy(m, policy)
	}
	d.replace(d.Base, "gPLink", disabled)
	directories := func() adminv1.DirectoryServiceClient { return adminv1.NewDirectoryServiceClient(d.fleet.Conn()) }
	var held []*adminv1.HeldInSource
	wait := func() string {
		d.fleet.Restart()
		d.fleet.Eventually("the change of Group Policy is held", func() bool {
			r, err := directories().ListHeld(d.Context(), &adminv1.ListHeldRequest{})
			if err != nil {
				d.Fatal(err)
			}
			held = r.GetHeld()
			return len(held) > 0
		})
		d.wantPolicy("pc1", policy)
		d.fleet.Eventually("the status tells of it", func() bool {
			return strings.Contains(d.groupPolicy().GetLastError(), "held by the mass-change guard as "+held[0].GetChange().GetId())
		})
		return held[0].GetChange().GetId()
	}
	first := wait()
	if text := strings.Join(held[0].GetChange().GetChanges(), "\n"); len(held) != 1 || !strings.Contains(text, "pc6: policy \"none\" instead of \""+policy+"\"") {
		d.Errorf("held are %v", held)
	}
	if _, err := d.fleet.Machines().DiscardChange(d.Context(), &adminv1.DiscardChangeRequest{Id: first}); err != nil {
		d.Fatal(err)
	}
	if again := wait(); again != first || held[0].GetChange().GetDiscarded() == nil {
		d.Errorf("after a restart %s waits: %v; before it was %s", again, held, first)
	}
	// What is released is read again at once.
	if _, err := d.fleet.Machines().ReleaseChange(d.Context(), &adminv1.ReleaseChangeRequest{Id: first}); err != nil {
		d.Fatal(err)
	}
	for _, m := range machines {
		d.wantPolicy(m, "none")
	}
	d.fleet.Eventually("nothing is held", func() bool {
		r, err := directories().ListHeld(d.Context(), &adminv1.ListHeldRequest{})
		return err == nil && len(r.GetHeld()) == 0
	})
}
