package ldap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
)

// domain is a running Active Directory domain.
type domain struct {
	*testing.T
	*samba.Server
	conn *goldap.Conn
}

func startDomain(t *testing.T) *domain {
	t.Helper()
	d := &domain{T: t, Server: samba.ForTest(t, samba.Options{Prefix: "bwldap-"})}
	d.dial()
	return d
}

func (d *domain) dial() {
	d.Helper()
	if d.conn != nil {
		d.conn.Close()
	}
	var err error
	if d.conn, err = d.Dial(); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { d.conn.Close() })
}

func (d *domain) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *domain) add(rdn string, attributes ...string) {
	d.Helper()
	d.must(d.Add(d.conn, rdn, attributes...))
}

func (d *domain) addUnit(rdn string) { d.Helper(); d.add(rdn, "objectClass=organizationalUnit") }

func (d *domain) addMachine(name, in string) {
	d.Helper()
	d.add("CN="+name+","+in, "objectClass=computer", "sAMAccountName="+name+"$", "userAccountControl=4096", "dNSHostName="+strings.ToLower(name)+".lab.example")
}

func (d *domain) move(rdn, newRDN, to string) {
	d.Helper()
	d.must(d.conn.ModifyDN(goldap.NewModifyDNRequest(rdn+","+d.Base, newRDN, true, to+","+d.Base)))
}

func (d *domain) replace(rdn, attribute, value string) {
	d.Helper()
	m := goldap.NewModifyRequest(rdn+","+d.Base, nil)
	m.Replace(attribute, []string{value})
	d.must(d.conn.Modify(m))
}

func (d *domain) member(group, rdn string, change func(*goldap.ModifyRequest, string, []string)) {
	d.Helper()
	m := goldap.NewModifyRequest(group+","+d.Base, nil)
	change(m, "member", []string{rdn + "," + d.Base})
	d.must(d.conn.Modify(m))
}

func (d *domain) remove(rdn string) {
	d.Helper()
	d.must(d.conn.Del(goldap.NewDelRequest(rdn+","+d.Base, nil)))
}

func (d *domain) config(bind, passwordFile string) Config {
	schema := directory.ActiveDirectory()
	return Config{
		URL: d.LDAPS, Base: directory.MustParseDN(d.Base), Schema: &schema, CAFile: d.CAFile, Bind: Simple{DN: bind, PasswordFile: passwordFile},
		Interval: time.Second, FullInterval: time.Hour, Timeout: 20 * time.Second,
	}
}

// addReader makes a user with the right to what the function grants it.
func (d *domain) addReader(name string, grant func(descriptor.SID)) (dn, passwordFile string) {
	d.Helper()
	dn, passwordFile = "CN="+name+",CN=Users,"+d.Base, filepath.Join(d.TempDir(), "password")
	d.add("CN="+name+",CN=Users", "objectClass=user", "sAMAccountName="+name, "userAccountControl=512", "unicodePwd="+d.Password)
	d.must(os.WriteFile(passwordFile, []byte(d.Password), 0o600))
	found, err := d.conn.Search(goldap.NewSearchRequest(dn, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"objectSid"}, nil))
	d.must(err)
	sid, err := descriptor.ParseSID(found.Entries[0].GetRawAttributeValue("objectSid"))
	d.must(err)
	if grant != nil {
		grant(sid)
	}
	return dn, passwordFile
}

// grant adds an entry to the access control list of an object.
func (d *domain) grant(object string, e descriptor.Entry) {
	d.Helper()
	controls := []goldap.Control{showDeleted(), accessControlOnly()}
	found, err := d.conn.Search(goldap.NewSearchRequest(object, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)",
		[]string{"nTSecurityDescriptor"}, controls))
	d.must(err)
	security, err := descriptor.Parse(found.Entries[0].GetRawAttributeValue("nTSecurityDescriptor"))
	d.must(err)
	security.Access.Entries = append(security.Access.Entries, e)
	m := goldap.NewModifyRequest(object, controls)
	m.Replace("nTSecurityDescriptor", []string{string(security.Append(nil))})
	d.must(d.conn.Modify(m))
}

// grantDeleted lets the account that is its argument see deleted objects.
const grantDeleted = `
import ldb
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack
found = db.search("CN=Deleted Objects," + str(db.domain_dn()), ldb.SCOPE_BASE, attrs=["nTSecurityDescriptor"], controls=["show_deleted:1"])[0]
sd = ndr_unpack(security.descriptor, found["nTSecurityDescriptor"][0])
sd.dacl_add(security.descriptor.from_sddl("D:(A;;LCRP;;;%s)" % args[0], security.dom_sid(db.get_domain_sid())).dacl.aces[0])
m = ldb.Message(found.dn)
m["sd"] = ldb.MessageElement(ndr_pack(sd), ldb.FLAG_MOD_REPLACE, "nTSecurityDescriptor")
db.modify(m, controls=["show_deleted:1"])
`

// until waits for content that a condition holds of, and holds it against a read of everything.
func (d *domain) until(s *Source, what string, condition func(*directory.Snapshot) bool) *directory.Snapshot {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	for {
		snap, err := s.Next(ctx)
		if err != nil {
			d.Fatalf("%s: %v", what, err)
		}
		if !condition(snap) {
			continue
		}
		whole, err := readOnce(d.T, s.target.Config)
		d.must(err)
		if whole.Digest() != snap.Digest() {
			d.Fatalf("%s: what was told makes another tree than a read of everything:\n%v", what, directory.NewDiff(whole, snap))
		}
		return snap
	}
}

func at(name, parent string) func(*directory.Snapshot) bool {
	return func(s *directory.Snapshot) bool {
		m, ok := s.MachineByName(name)
		return ok && m.DN.Parent().Equal(directory.MustParseDN(parent))
	}
}

// TestActiveDirectory lives through the same story with each way to be told of changes, and through what servers do.
func TestActiveDirectory(t *testing.T) {
	d := startDomain(t)
	plainDN, plainFile := d.addReader("plain", nil)
	deletedDN, deletedFile := d.addReader("deleted", func(sid descriptor.SID) {
		// Administrators may not: the system itself has to.
		if out, err := d.AsSystem(d.Context(), grantDeleted, sid.String()); err != nil {
			d.Fatal(err, out)
		}
	})
	for _, way := range []struct {
		name           string
		config         Config
		protocol, note string
	}{
		{"DirSync", d.config(d.Administrator, d.PasswordFile), protocolDirSync + wokenSuffix, ""},
		{"USN", d.config(deletedDN, deletedFile), protocolUSN + wokenSuffix, "Replicating Directory Changes"},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := &domain{T: t, Server: d.Server, conn: d.conn}
			s := d.open(way.config)
			d.wantProtocol(s, way.protocol, way.note)
			d.story(s, way.name)
			d.wantProtocol(s, way.protocol, way.note)
		})
	}
	t.Run("Polling", func(t *testing.T) {
		d := &domain{T: t, Server: d.Server, conn: d.conn}
		s := d.open(d.config(plainDN, plainFile))
		d.wantProtocol(s, protocolPoll, `List Contents and Read Property on "CN=Deleted Objects`)
	})
	t.Run("DirSyncWithoutDeletions", func(t *testing.T) {
		d := &domain{T: t, Server: d.Server, conn: d.conn}
		dn, file := d.addReader("sync", func(sid descriptor.SID) {
			changes := descriptor.MustParseGUID("1131f6aa-9c07-11d1-f79f-00c04fc2dcd2")
			d.grant(d.Base, descriptor.Entry{Type: descriptor.AccessAllowedObject, Mask: descriptor.ControlAccess, Object: changes, Trustee: sid})
		})
		s := d.open(d.config(dn, file))
		d.wantProtocol(s, protocolPoll, "does not tell")
	})
	t.Run("Failover", func(t *testing.T) {
		d := &domain{T: t, Server: d.Server, conn: d.conn}
		s := d.open(d.config(d.Administrator, d.PasswordFile))
		first := s.Status().LastFull
		// As if what is known came from another database: its sequence numbers and cookie say nothing about this one.
		s.replicator.server.Invocation[0] ^= 1
		d.addUnit("OU=Failover")
		d.until(s, "failover", func(s *directory.Snapshot) bool {
			_, ok := s.ContainerByDN(directory.MustParseDN("OU=Failover," + d.Base))
			return ok
		})
		if s.Status().LastFull.Equal(first) {
			t.Error("another database was taken for the one that is known")
		}
		// A cookie that is not the server's is no reason to believe it either.
		first = s.Status().LastFull
		s.replicator.cookie = []byte("a cookie of another server")
		d.remove("OU=Failover")
		d.until(s, "foreign cookie", func(s *directory.Snapshot) bool {
			_, ok := s.ContainerByDN(directory.MustParseDN("OU=Failover," + d.Base))
			return !ok
		})
		if s.Status().LastFull.Equal(first) {
			t.Error("with a foreign cookie not everything was read again")
		}
	})
	t.Run("Restart", func(t *testing.T) { d.restart(t, d.config(deletedDN, deletedFile)) })
}

// open opens a source and has its first content.
func (d *domain) open(c Config) *Source {
	d.Helper()
	s, err := Open(c)
	d.must(err)
	d.Cleanup(func() { s.Close() })
	d.until(s, "first read", func(*directory.Snapshot) bool { return true })
	return s
}

func (d *domain) wantProtocol(s *Source, protocol, note string) {
	d.Helper()
	st := s.Status()
	if st.Protocol != protocol || !strings.Contains(st.ProtocolNote, note) || (note == "") != (st.ProtocolNote == "") {
		d.Errorf("the protocol is %q (%s), want %q with a note about %q", st.Protocol, st.ProtocolNote, protocol, note)
	}
}

// restart goes on from what is known when the domain controller comes back, and reads everything when it comes back with
// an older database.
func (d *domain) restart(t *testing.T, c Config) {
	d = &domain{T: t, Server: d.Server, conn: d.conn}
	s := d.open(c)
	first := s.Status().LastFull
	d.addUnit("OU=Before")
	d.until(s, "before", func(snap *directory.Snapshot) bool {
		_, ok := snap.ContainerByDN(directory.MustParseDN("OU=Before," + d.Base))
		return ok
	})
	d.must(d.Stop())
	d.must(d.Save())
	if _, err := s.Next(t.Context()); err == nil {
		t.Error("a stopped server is read")
	}
	d.must(d.Server.Run(t.Context()))
	d.dial()
	d.addUnit("OU=After")
	after := directory.MustParseDN("OU=After," + d.Base)
	has := func(dn directory.DN, s *directory.Snapshot) bool { _, ok := s.ContainerByDN(dn); return ok }
	d.untilThrough(s, "after the restart", func(s *directory.Snapshot) bool { return has(after, s) })
	if full := s.Status().LastFull; !full.Equal(first) {
		t.Errorf("after a restart everything was read again, at %v, first at %v", full, first)
	}
	d.must(d.Stop())
	d.must(d.Restore())
	d.must(d.Server.Run(t.Context()))
	d.dial()
	d.untilThrough(s, "after the backup was restored", func(s *directory.Snapshot) bool { return !has(after, s) })
	if full := s.Status().LastFull; full.Equal(first) {
		t.Error("after a backup was restored not everything was read again")
	}
}

// untilThrough is until for a server that is not there at first.
func (d *domain) untilThrough(s *Source, what string, condition func(*directory.Snapshot) bool) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 2*patience)
	defer cancel()
	for {
		snap, err := s.Next(ctx)
		if ctx.Err() != nil {
			d.Fatalf("%s: %v", what, err)
		}
		if err == nil && condition(snap) {
			return
		}
	}
}

func (d *domain) story(s *Source, mark string) {
	d.Helper()
	top := "OU=" + mark
	name := func(n string) string { return n + mark }
	full := func(rdn string) string { return rdn + "," + d.Base }
	began := time.Now()
	step := func(what string, condition func(*directory.Snapshot) bool) *directory.Snapshot {
		d.Helper()
		snap := d.until(s, what, condition)
		d.Logf("%-20s %v", what, time.Since(began).Round(time.Millisecond))
		began = time.Now()
		return snap
	}

	d.addUnit(top)
	d.addUnit("OU=A," + top)
	d.addUnit("OU=B," + top)
	d.addMachine(name("sql"), "OU=A,"+top)
	d.addMachine(name("web"), "OU=A,"+top)
	d.add("CN="+name("inner")+","+top, "objectClass=group", "sAMAccountName="+name("inner"))
	d.add("CN="+name("outer")+","+top, "objectClass=group", "sAMAccountName="+name("outer"))
	d.member("CN="+name("inner")+","+top, "CN="+name("sql")+",OU=A,"+top, (*goldap.ModifyRequest).Add)
	d.member("CN="+name("outer")+","+top, "CN="+name("inner")+","+top, (*goldap.ModifyRequest).Add)
	outer := directory.MustParseDN(full("CN=" + name("outer") + "," + top))
	in := func(s *directory.Snapshot) bool {
		m, ok := s.MachineByName(name("sql"))
		return ok && s.IsMember(m.DN, outer)
	}
	step("add", in)
	began = time.Now()

	d.replace("CN="+name("sql")+",OU=A,"+top, "dNSHostName", "db"+mark+".lab.example")
	step("modify", func(s *directory.Snapshot) bool { _, ok := s.MachineByName("db" + mark + ".lab.example"); return ok })
	d.replace("CN="+name("web")+",OU=A,"+top, "userAccountControl", "4098")
	step("disable", func(s *directory.Snapshot) bool { m, _ := s.MachineByName(name("web")); return m.Disabled })

	d.move("CN="+name("sql")+",OU=A,"+top, "CN="+name("sql"), "OU=B,"+top)
	moved := step("move machine", at(name("sql"), full("OU=B,"+top)))
	if !in(moved) {
		d.Error("a machine that was moved lost its groups")
	}
	d.move("CN="+name("sql")+",OU=B,"+top, "CN="+name("sql"), "OU=A,"+top)
	d.move("OU=A,"+top, "OU=C", "OU=B,"+top)
	moved = step("move subtree", at(name("sql"), full("OU=C,OU=B,"+top)))
	if !in(moved) {
		d.Error("a machine whose subtree was moved lost its groups")
	}
	d.move("OU=C,OU=B,"+top, "OU=D", "OU=B,"+top)
	step("rename subtree", at(name("web"), full("OU=D,OU=B,"+top)))

	d.member("CN="+name("outer")+","+top, "CN="+name("inner")+","+top, (*goldap.ModifyRequest).Delete)
	step("group change", func(s *directory.Snapshot) bool { return !in(s) })

	d.remove("CN=" + name("web") + ",OU=D,OU=B," + top)
	step("delete", func(s *directory.Snapshot) bool { _, ok := s.MachineByName(name("web")); return !ok })
}
