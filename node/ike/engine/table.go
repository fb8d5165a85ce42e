package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// table is the IKE SAs of an engine, found by everything that a step looks for, so that a step costs the same with ten
// thousand of them as with ten. What an SA is found by changes only while code of it runs: Engine.after files it again.
type table struct {
	bySPI    map[wire.SPI]*entry
	byPeer   map[netip.Addr][]*entry // by the remote address, in the order of making
	byChild  map[sa.SPI]*entry       // by the inbound SPIs of the Child SAs
	byInit   map[initKey][]*entry    // half-open ones, by what a repeated IKE_SA_INIT shares with the first
	prefixes map[netip.Prefix]population
	expected map[wire.SPI]struct{} // own SPIs of SAs that rekeys are about to make, and that their peers may have already
	order    chain[*entry]
	deadline agenda[*entry]
	// uncookied are the half-open SAs whose peer has not shown that it receives what is sent to it, the oldest first.
	uncookied agenda[*entry]
	halfOpen  int
	live      int    // not closed
	front     *Front // nil: nobody asks
	buffered  int    // octets that are kept for peers that are not authenticated
	made      uint64
}

// initKey is what a repeated IKE_SA_INIT request shares with the first.
type initKey struct {
	remote netip.AddrPort
	peer   wire.SPI
}

// population counts the SAs with peers in one prefix.
type population struct{ halfOpen, established int }

// entry is an SA in its engine.
type entry struct {
	sa        *ikev2.SA
	link      link[*entry]
	due       appointment[*entry]
	uncookied appointment[*entry]
	filed     filing
	answered  bool        // the peer is not silent
	retiring  bool        // a duplicate that is being closed
	cookied   bool        // made with a valid cookie
	gone      bool        // has left the table
	handed    bool        // its Child SAs are filed under the successor
	told      ikev2.State // the state that was told last
	renews    *entry      // the SA that this one is to take over from; nil: none
	forgotten bool        // the peer has proved that it knows nothing of it
	revives   *entry      // the forgotten SA that ends when this one has come to something or to nothing; nil: none
}

// filing is under what an SA is found.
type filing struct {
	remote      netip.AddrPort
	home        netip.Addr // where the peer was, when it has moved
	init        initKey
	halfOpen    bool
	established bool
	live        bool
	buffered    int      // octets that are kept for a peer that is not authenticated
	expects     wire.SPI // own SPI of the SA that its rekey is about to make
}

func newTable() table {
	return table{
		bySPI: make(map[wire.SPI]*entry), byPeer: make(map[netip.Addr][]*entry), byChild: make(map[sa.SPI]*entry),
		byInit: make(map[initKey][]*entry), expected: make(map[wire.SPI]struct{}),
		prefixes: make(map[netip.Prefix]population),
	}
}

// add puts a new SA into the table.
func (t *table) add(s *ikev2.SA, cookied bool) *entry {
	t.made++
	x := &entry{sa: s, cookied: cookied}
	x.link.of = x
	x.due.of, x.due.seq = x, t.made
	x.uncookied.of, x.uncookied.seq = x, t.made
	t.bySPI[s.SPI()] = x
	t.order.add(&x.link)
	t.file(x)
	return x
}

// forget takes an SA out of the table.
func (t *table) forget(x *entry) {
	if x.gone {
		return
	}
	x.gone = true
	t.refile(x, filing{})
	t.deadline.set(&x.due, time.Time{})
	delete(t.bySPI, x.sa.SPI())
	t.order.remove(&x.link)
}

// file puts an SA under what it is found by now.
func (t *table) file(x *entry) {
	if x.gone {
		return
	}
	state := x.sa.State()
	_, remote := x.sa.Addresses()
	f := filing{
		remote: remote, live: state != ikev2.StateClosed, established: state == ikev2.StateEstablished,
		halfOpen: !x.sa.Initiator() && state < ikev2.StateEstablished,
	}
	if home := x.sa.Home(); home != remote.Addr() {
		f.home = home
	}
	if f.halfOpen {
		f.init, f.buffered = initKey{remote, x.sa.PeerSPI()}, x.sa.Buffered()
	}
	f.expects = x.sa.Expected()
	t.refile(x, f)
}

func (t *table) refile(x *entry, f filing) {
	old := x.filed
	if old == f {
		return
	}
	x.filed = f
	if t.front != nil {
		t.front.file(x, f)
	}
	if old.remote.Addr() != f.remote.Addr() {
		unlist(t.byPeer, old.remote.Addr(), x)
		enlist(t.byPeer, f.remote.Addr(), x)
	}
	if old.home != f.home {
		unlist(t.byPeer, old.home, x)
		enlist(t.byPeer, f.home, x)
	}
	if old.init != f.init {
		unlist(t.byInit, old.init, x)
		enlist(t.byInit, f.init, x)
	}
	if old.expects != f.expects {
		delete(t.expected, old.expects)
		if f.expects != 0 {
			t.expected[f.expects] = struct{}{}
		}
	}
	t.populate(old, -1)
	t.populate(f, 1)
	if f.halfOpen && !x.cookied {
		t.uncookied.set(&x.uncookied, x.sa.Created())
	} else {
		t.uncookied.set(&x.uncookied, time.Time{})
	}
}

func (t *table) populate(f filing, by int) {
	if f.live {
		t.live += by
	}
	if f.halfOpen {
		t.halfOpen += by
		t.buffered += by * f.buffered
	}
	if !f.halfOpen && !f.established {
		return
	}
	prefix := prefixOf(f.remote.Addr())
	p := t.prefixes[prefix]
	if f.halfOpen {
		p.halfOpen += by
	}
	if f.established {
		p.established += by
	}
	if p == (population{}) {
		delete(t.prefixes, prefix)
		return
	}
	t.prefixes[prefix] = p
}

// enlist files x under key, which is no key when it is zero.
func enlist[K comparable](m map[K][]*entry, key K, x *entry) {
	var none K
	if key == none {
		return
	}
	list := append(m[key], x)
	for i := len(list) - 1; i > 0 && list[i-1].due.seq > x.due.seq; i-- { // one that moved here from another address
		list[i-1], list[i] = list[i], list[i-1]
	}
	m[key] = list
}

func unlist[K comparable](m map[K][]*entry, key K, x *entry) {
	list := m[key]
	i := slices.Index(list, x)
	if i < 0 {
		return
	}
	if len(list) == 1 {
		delete(m, key)
		return
	}
	m[key] = slices.Delete(list, i, i+1)
}

// repeated finds the half-open SA that this IKE_SA_INIT request made, be it with or without a cookie.
func (t *table) repeated(from netip.AddrPort, peer wire.SPI, datagram []byte) *entry {
	for _, x := range t.byInit[initKey{from, peer}] {
		if wire.SameInit(x.sa.InitRequest(), datagram) {
			return x
		}
	}
	return nil
}

// oldestUncookied is the half-open SA that is given up first; nil when every one has shown a cookie.
func (t *table) oldestUncookied() *entry {
	if len(t.uncookied.heap) == 0 {
		return nil
	}
	return t.uncookied.heap[0].of
}

// handOver files the Child SAs of a rekeyed SA under its successor.
func (t *table) handOver(x, successor *entry) {
	if x.handed {
		return
	}
	x.handed = true
	for _, c := range successor.sa.Children() {
		t.byChild[c.In.SPI] = successor
	}
}

// installed and removed follow what happens to Child SAs while code of x runs.
func (t *table) installed(x *entry, in sa.SPI) { t.byChild[in] = x }
func (t *table) removed(in sa.SPI)             { delete(t.byChild, in) }

// CheckTables returns what is wrong with the tables of the engine: nothing, unless there is an error in it. It looks at
// every SA and is meant for tests, which call it after every step.
func (e *Engine) CheckTables() error {
	t := &e.table
	want := newTable()
	deadlines := 0
	for _, x := range t.order.all() {
		state := x.sa.State()
		_, remote := x.sa.Addresses()
		f := filing{remote: remote, live: state != ikev2.StateClosed, established: state == ikev2.StateEstablished}
		if f.halfOpen = !x.sa.Initiator() && state < ikev2.StateEstablished; f.halfOpen {
			f.init, f.buffered = initKey{remote, x.sa.PeerSPI()}, x.sa.Buffered()
		}
		if f.expects = x.sa.Expected(); f.expects != 0 {
			want.expected[f.expects] = struct{}{}
		}
		if home := x.sa.Home(); home != remote.Addr() {
			f.home = home
		}
		want.populate(f, 1)
		if !x.due.at.IsZero() {
			deadlines++
		}
		switch {
		case x.filed != f:
			return fmt.Errorf("IKE SA %s is filed as %+v, want %+v", x.sa.SPI(), x.filed, f)
		case x.gone || t.bySPI[x.sa.SPI()] != x:
			return fmt.Errorf("IKE SA %s is not found by its SPI", x.sa.SPI())
		case f.home.IsValid() && !slices.Contains(t.byPeer[f.home], x):
			return fmt.Errorf("IKE SA %s is not found by where its peer was", x.sa.SPI())
		case !slices.Contains(t.byPeer[remote.Addr()], x):
			return fmt.Errorf("IKE SA %s is not found by its peer", x.sa.SPI())
		case !x.due.at.Equal(x.sa.Deadline()):
			return fmt.Errorf("IKE SA %s is due at %s, want %s", x.sa.SPI(), x.due.at, x.sa.Deadline())
		case (x.due.place == 0) != x.due.at.IsZero():
			return fmt.Errorf("IKE SA %s is due at %s, and at place %d", x.sa.SPI(), x.due.at, x.due.place)
		}
		for _, c := range x.sa.Children() {
			want.byChild[c.In.SPI] = x
			if t.byChild[c.In.SPI] != x {
				return fmt.Errorf("the Child SA %s is not found at IKE SA %s", c.In.SPI, x.sa.SPI())
			}
		}
	}
	switch {
	case len(t.bySPI) != t.order.length || len(t.deadline.heap) != deadlines:
		return fmt.Errorf("%d IKE SAs, %d of them by SPI, %d of %d deadlines", t.order.length, len(t.bySPI), len(t.deadline.heap), deadlines)
	case len(t.byChild) != len(want.byChild):
		return fmt.Errorf("%d Child SAs are filed, there are %d", len(t.byChild), len(want.byChild))
	case len(t.expected) != len(want.expected):
		return fmt.Errorf("%d IKE SAs are expected, there are %d", len(t.expected), len(want.expected))
	case t.buffered != want.buffered:
		return fmt.Errorf("%d octets of unauthenticated peers are counted, there are %d", t.buffered, want.buffered)
	case t.halfOpen != want.halfOpen || t.live != want.live || len(t.prefixes) != len(want.prefixes):
		return fmt.Errorf("%d half-open of %d in %d prefixes are counted, there are %d of %d in %d", t.halfOpen, t.live,
			len(t.prefixes), want.halfOpen, want.live, len(want.prefixes))
	}
	for prefix, p := range want.prefixes {
		if t.prefixes[prefix] != p {
			return fmt.Errorf("%+v are counted in %s, there are %+v", t.prefixes[prefix], prefix, p)
		}
	}
	return e.checkFlows()
}
