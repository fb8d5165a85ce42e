package ldap

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
)

// An actor plays a directory server within the process: the same requests get the same octets every time. It knows paged
// searches, contextCSN and content synchronization as OpenLDAP has them, takes every bind, and evaluates no filter. What a
// server may do wrong is put into its hooks.
type actor struct {
	sid string // of its change sequence numbers

	mu      sync.Mutex
	stage   int // counts the changes
	entries []actorEntry
	streams []*actorStream
	conns   []net.Conn
	all     sync.WaitGroup

	noSync bool
	// search may answer a search of the tree in another way; what it returns false for is answered as ever.
	search func(c *actorConn, id int64, request *ber.Packet, cookie string) bool
	// object may answer a search of one entry in another way.
	object func(c *actorConn, id int64, base string) bool
	// wrap goes between the server's answers and the connection.
	wrap func(net.Conn) net.Conn
	tls  *tls.Config
}

type actorEntry struct {
	directory.Entry
	uuid  directory.UUID
	stage int // of the last change
	gone  bool
}

type actorConn struct {
	*actor
	net.Conn
	out chan []byte // closed by nobody
	end chan struct{}

	controls *ber.Packet // of the request that is being answered, or nil
}

type actorStream struct {
	conn *actorConn
	id   int64
}

// newActor plays a server with the entries of an LDIF file.
func newActor(t testing.TB, text string) *actor {
	t.Helper()
	a := &actor{sid: "001"}
	records, err := ldif.Parse("actor.ldif", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		a.entries = append(a.entries, a.entry(r.Entry, i+1))
	}
	return a
}

func (a *actor) entry(e directory.Entry, n int) actorEntry {
	u := directory.UUID{15: byte(n), 14: byte(n >> 8), 0: 0xb1}
	e.Attributes = append(slices.Clone(e.Attributes), directory.Attribute{Name: "entryUUID", Values: []string{u.String()}})
	return actorEntry{Entry: e, uuid: u, stage: a.stage}
}

// dial is for target.dial.
func (a *actor) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	client, server := buffer(near), buffer(far)
	if a.wrap != nil {
		server = a.wrap(server)
	}
	if a.tls != nil {
		server = tls.Server(server, a.tls)
	}
	c := &actorConn{actor: a, Conn: server, out: make(chan []byte, 1000), end: make(chan struct{})}
	a.mu.Lock()
	a.conns = append(a.conns, server)
	a.mu.Unlock()
	a.all.Go(c.serve)
	a.all.Go(c.deliver)
	return client, nil
}

// buffered is an end of a pipe that takes what is written at once, as a socket does.
type buffered struct {
	net.Conn
	out  chan []byte
	end  chan struct{}
	once sync.Once
}

func buffer(c net.Conn) net.Conn {
	b := &buffered{Conn: c, out: make(chan []byte, 1000), end: make(chan struct{})}
	go b.deliver()
	return b
}

func (b *buffered) Write(octets []byte) (int, error) {
	select {
	case <-b.end:
		return 0, net.ErrClosed
	case b.out <- slices.Clone(octets):
		return len(octets), nil
	}
}

// Close lets what was written arrive first.
func (b *buffered) Close() error {
	b.once.Do(func() { close(b.end) })
	return nil
}

func (b *buffered) deliver() {
	defer b.Conn.Close()
	var err error
	for {
		select {
		case octets := <-b.out:
			if err == nil {
				_, err = b.Conn.Write(octets)
			}
			continue
		default:
		}
		select {
		case octets := <-b.out:
			if err == nil {
				_, err = b.Conn.Write(octets)
			}
		case <-b.end:
			return
		}
	}
}

// cut ends all connections.
func (a *actor) cut() {
	a.mu.Lock()
	conns := a.conns
	a.conns, a.streams = nil, nil
	a.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (a *actor) close() {
	a.cut()
	a.all.Wait()
}

// csn names a stage; its width is that of OpenLDAP's.
func (a *actor) csn(stage int) string {
	return fmt.Sprintf("20260101000000.%06dZ#000000#%s#000000", stage, a.sid)
}

func (a *actor) cookie(stage int) string { return "rid=000,csn=" + a.csn(stage) }

// change edits entries and tells everybody who listens.
func (a *actor) change(edit func(find func(dn string) *actorEntry)) {
	a.mu.Lock()
	a.stage++
	var changed []*actorEntry
	edit(func(dn string) *actorEntry {
		i := slices.IndexFunc(a.entries, func(e actorEntry) bool { return !e.gone && e.DN == dn })
		if i < 0 {
			panic("the actor has no entry " + dn)
		}
		e := &a.entries[i]
		e.stage = a.stage
		changed = append(changed, e)
		return e
	})
	streams := slices.Clone(a.streams)
	var messages [][]byte
	for _, s := range streams {
		for _, e := range changed {
			messages = append(messages, syncEntryMessage(s.id, *e, goldap.SyncStateModify, a.cookie(a.stage)))
		}
	}
	a.mu.Unlock()
	for i, m := range messages {
		streams[i/max(1, len(changed))].conn.send(m)
	}
}

// send has a message delivered after those before it; nil ends the connection.
func (c *actorConn) send(message []byte) {
	select {
	case c.out <- message:
	case <-c.end:
	}
}

func (c *actorConn) deliver() {
	for {
		select {
		case m := <-c.out:
			if m == nil {
				c.Close()
				continue
			}
			if _, err := c.Write(m); err != nil {
				c.Close()
				return
			}
		case <-c.end:
			return
		}
	}
}

func (c *actorConn) serve() {
	defer close(c.end)
	defer c.Close()
	for {
		p, err := ber.ReadPacket(c.Conn)
		if err != nil || len(p.Children) < 2 {
			return
		}
		id, ok := p.Children[0].Value.(int64)
		if !ok {
			return
		}
		request := p.Children[1]
		switch request.Tag {
		case goldap.ApplicationBindRequest:
			c.send(resultMessage(id, goldap.ApplicationBindResponse, 0))
		case goldap.ApplicationSearchRequest:
			cookie, sync := "", false
			c.controls = nil
			if len(p.Children) > 2 {
				c.controls = p.Children[2]
				cookie, sync = controlCookie(p.Children[2])
			}
			c.answer(id, request, cookie, sync)
		case goldap.ApplicationUnbindRequest:
			return
		default: // no other request is made
		}
	}
}

// controlCookie finds the cookie of a paged or a synchronizing search.
func controlCookie(controls *ber.Packet) (cookie string, sync bool) {
	for _, control := range controls.Children {
		oid, _ := control.Children[0].Value.(string)
		value := ber.DecodePacket(control.Children[len(control.Children)-1].Data.Bytes())
		if value == nil {
			continue
		}
		sync = oid == goldap.ControlTypeSyncRequest
		for _, part := range value.Children {
			if part.Tag == ber.TagOctetString && part.ClassType == ber.ClassUniversal {
				cookie = part.Data.String()
			}
		}
	}
	return cookie, sync
}

func (c *actorConn) answer(id int64, request *ber.Packet, cookie string, sync bool) {
	base, _ := request.Children[0].Value.(string)
	scope, _ := request.Children[1].Value.(int64)
	c.mu.Lock()
	stage, hook := c.stage, c.search
	live := slices.DeleteFunc(slices.Clone(c.entries), func(e actorEntry) bool { return e.gone })
	c.mu.Unlock()
	if scope != goldap.ScopeBaseObject && hook != nil && hook(c, id, request, cookie) {
		return
	}
	if scope == goldap.ScopeBaseObject && c.object != nil && c.object(c, id, base) {
		return
	}
	switch {
	case scope == goldap.ScopeBaseObject && base == "":
		root := directory.Entry{Attributes: []directory.Attribute{{Name: "namingContexts", Values: []string{live[0].DN}}}}
		if !c.noSync {
			root.Attributes = append(root.Attributes, directory.Attribute{Name: "supportedControl", Values: []string{goldap.ControlTypeSyncRequest}})
		}
		c.send(slices.Concat(entryMessage(id, root), resultMessage(id, goldap.ApplicationSearchResultDone, 0)))
	case scope == goldap.ScopeBaseObject:
		context := directory.Entry{DN: base, Attributes: []directory.Attribute{{Name: "contextCSN", Values: []string{c.csn(stage)}}}}
		c.send(slices.Concat(entryMessage(id, context), resultMessage(id, goldap.ApplicationSearchResultDone, 0)))
	case sync:
		c.refresh(id, cookie)
	default:
		from, size := 0, 3
		_, _ = fmt.Sscan(cookie, &from) // no cookie is the first page
		next := ""
		for i := from; i < len(live) && i < from+size; i++ {
			c.send(entryMessage(id, live[i].Entry))
		}
		if from+size < len(live) {
			next = fmt.Sprint(from + size)
		}
		c.send(resultMessage(id, goldap.ApplicationSearchResultDone, 0, &goldap.ControlPaging{Cookie: []byte(next)}))
	}
}

func (c *actorConn) refresh(id int64, cookie string) {
	// Under the lock: a change comes after the refresh that does not have it.
	c.mu.Lock()
	defer c.mu.Unlock()
	known := -1
	for stage := range c.stage + 1 {
		if cookie == c.cookie(stage) {
			known = stage
		}
	}
	if cookie != "" && known < 0 {
		c.send(resultMessage(id, goldap.ApplicationSearchResultDone, resultSyncRefreshRequired))
		return
	}
	var present []directory.UUID
	for _, e := range c.entries {
		switch {
		case e.gone:
		case e.stage > known:
			c.send(syncEntryMessage(id, e, goldap.SyncStateAdd, ""))
		default:
			present = append(present, e.uuid)
		}
	}
	if len(present) > 0 {
		c.send(presentMessage(id, present))
	}
	c.send(refreshDone(id, c.cookie(c.stage)))
	c.streams = append(c.streams, &actorStream{c, id})
}

// tree is what the actor holds as a snapshot.
func (a *actor) tree(t testing.TB) *directory.Snapshot {
	t.Helper()
	var entries []directory.Entry
	for _, e := range a.entries {
		if !e.gone {
			entries = append(entries, e.Entry)
		}
	}
	schema := directory.OpenLDAP()
	return treeOf(t, base, &schema, entries)
}

// treeOf is what a schema makes of entries.
func treeOf(t testing.TB, base directory.DN, schema *directory.Schema, entries []directory.Entry) *directory.Snapshot {
	t.Helper()
	b := directory.NewBuilder(base)
	for _, e := range entries {
		o, problems, err := schema.Map(e)
		if err != nil {
			t.Fatal(err)
		}
		b.AddProblem(problems...)
		b.Add(o)
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reader is a source of the actor.
func (a *actor) reader(t testing.TB, edit ...func(*Config)) *Source {
	t.Helper()
	c := Config{URL: "ldap://127.0.0.1", AllowClear: true, Base: base, PageSize: 3}
	for _, e := range edit {
		e(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	s.target.dial = a.dial
	return s
}

// small is a company of few octets.
const small = `dn: dc=bank,dc=example
objectClass: domain
dc: bank

dn: ou=A,dc=bank,dc=example
objectClass: organizationalUnit
ou: A

dn: ou=B,dc=bank,dc=example
objectClass: organizationalUnit
ou: B

dn: cn=m1,ou=A,dc=bank,dc=example
objectClass: device
cn: m1

dn: cn=m2,ou=A,dc=bank,dc=example
objectClass: device
cn: m2

dn: cn=g,dc=bank,dc=example
objectClass: groupOfNames
cn: g
member: cn=m2,ou=A,dc=bank,dc=example
`
