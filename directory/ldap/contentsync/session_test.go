package contentsync

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
)

func id(n int) directory.UUID { return directory.UUID{15: byte(n), 14: byte(n >> 8)} }

// thing makes the item of a name: containers are "ou=", machines "cn=".
func thing(n int, name string) Item {
	dn := directory.MustParseDN(name)
	if dn.RDNType() == "cn" && n%7 == 6 {
		return Item{DN: dn, Problems: []directory.Problem{{DN: name, Reason: "no name"}}}
	}
	if dn.RDNType() == "cn" && n%7 == 5 {
		return Item{DN: dn, Object: directory.Machine{UUID: id(n), DN: dn, Name: fmt.Sprint("m", n)}, Problems: []directory.Problem{{DN: name, Attribute: "a", Reason: "b"}}}
	}
	if dn.RDNType() == "cn" {
		return Item{DN: dn, Object: directory.Machine{UUID: id(n), DN: dn, Name: dn.Name()}}
	}
	return Item{DN: dn, Object: directory.Container{UUID: id(n), DN: dn, Kind: directory.KindOf(dn)}}
}

func put(s State, n int, name string) Message {
	return EntryState{State: s, UUID: id(n), Item: thing(n, name)}
}
func gone(n int) Message { return EntryState{State: Delete, UUID: id(n)} }
func here(n int) Message { return EntryState{State: Present, UUID: id(n)} }
func ids(deletes bool, n ...int) Message {
	set := IDSet{Deletes: deletes}
	for _, i := range n {
		set.UUIDs = append(set.UUIDs, id(i))
	}
	return set
}

var (
	presentDone = PhaseEnd{Done: true, Cookie: "done"}
	presentEnd  = PhaseEnd{}
	deleteDone  = PhaseEnd{Deletes: true, Done: true, Cookie: "done"}
)

// names renders content: "1=ou=a,dc=x 2=...".
func names(items map[directory.UUID]Item) string {
	var out []string
	for u, item := range items {
		if o := item.Object; o != nil {
			if v, dn := o.Identity(); v != u || !dn.Equal(item.DN) {
				return fmt.Sprintf("item %s is %s %s", u, v, dn)
			}
		}
		out = append(out, fmt.Sprintf("%d=%s", int(u[14])<<8|int(u[15]), item.DN))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// tree is a replica of a base, two containers and two machines.
func tree(t testing.TB) Replica {
	t.Helper()
	s := Start(false)
	for _, m := range []Message{
		put(Add, 1, "dc=x"), put(Add, 2, "ou=a,dc=x"), put(Add, 3, "ou=b,dc=x"), put(Add, 4, "cn=m,ou=a,dc=x"), put(Add, 5, "cn=n,ou=b,dc=x"), deleteDone,
	} {
		if err := s.Apply(m); err != nil {
			t.Fatal(err)
		}
	}
	r, ok := s.Replica()
	if !ok || r.Cookie() != "done" || r.Len() != 5 {
		t.Fatalf("the tree is %v, %v", r, ok)
	}
	return r
}

func TestSession(t *testing.T) {
	const all = "1=dc=x 2=ou=a,dc=x 3=ou=b,dc=x 4=cn=m,ou=a,dc=x 5=cn=n,ou=b,dc=x"
	for name, tc := range map[string]struct {
		fresh, inner bool
		messages     []Message
		want         string // "" when the last message is refused
	}{
		"nothing changed, by names":        {messages: []Message{here(1), ids(false, 2, 3), ids(false, 4, 5), presentDone}, want: all},
		"nothing changed, no deletes":      {messages: []Message{deleteDone}, want: all},
		"one gone by absence":              {messages: []Message{ids(false, 1, 2, 3, 5), presentDone}, want: "1=dc=x 2=ou=a,dc=x 3=ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"one gone by name":                 {messages: []Message{gone(4), deleteDone}, want: "1=dc=x 2=ou=a,dc=x 3=ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"a set gone":                       {messages: []Message{ids(true, 2, 4), deleteDone}, want: "1=dc=x 3=ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"present, then deleted":            {messages: []Message{ids(false, 1, 2, 3, 4, 5), presentEnd, gone(5), deleteDone}, want: "1=dc=x 2=ou=a,dc=x 3=ou=b,dc=x 4=cn=m,ou=a,dc=x"},
		"changed and added in a refresh":   {messages: []Message{put(Add, 4, "cn=m,ou=b,dc=x"), put(Add, 6, "cn=o,ou=a,dc=x"), deleteDone}, want: "1=dc=x 2=ou=a,dc=x 3=ou=b,dc=x 4=cn=m,ou=b,dc=x 5=cn=n,ou=b,dc=x 6=cn=o,ou=a,dc=x"},
		"containers that changed names":    {messages: []Message{put(Add, 3, "ou=a,dc=x"), put(Add, 2, "ou=b,dc=x"), deleteDone}, want: "1=dc=x 2=ou=b,dc=x 3=ou=a,dc=x 4=cn=m,ou=b,dc=x 5=cn=n,ou=a,dc=x"},
		"moved out of what was renamed":    {messages: []Message{put(Add, 4, "cn=m,ou=b,dc=x"), put(Add, 2, "ou=c,dc=x"), deleteDone}, want: "1=dc=x 2=ou=c,dc=x 3=ou=b,dc=x 4=cn=m,ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"subtree renamed while persisting": {messages: []Message{deleteDone, put(Modify, 2, "ou=z,ou=b,dc=x")}, want: "1=dc=x 2=ou=z,ou=b,dc=x 3=ou=b,dc=x 4=cn=m,ou=z,ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"leaf deleted while persisting":    {messages: []Message{deleteDone, gone(4), gone(2), gone(77)}, want: "1=dc=x 3=ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"a set deleted while persisting":   {messages: []Message{deleteDone, ids(true, 2, 4)}, want: "1=dc=x 3=ou=b,dc=x 5=cn=n,ou=b,dc=x"},
		"a container comes":                {messages: []Message{deleteDone, put(Add, 6, "ou=c,dc=x"), NewCookie{"new"}}, want: all + " 6=ou=c,dc=x"},
		"fresh":                            {fresh: true, messages: []Message{put(Add, 1, "dc=x"), presentDone}, want: "1=dc=x"},

		"unknown present":                     {messages: []Message{here(9)}},
		"unknown present in a set":            {messages: []Message{ids(false, 1, 9)}},
		"present without cookie":              {fresh: true, messages: []Message{put(Add, 1, "dc=x"), here(1)}},
		"deleted without cookie":              {fresh: true, messages: []Message{put(Add, 1, "dc=x"), gone(1)}},
		"deleted in the present phase":        {messages: []Message{here(1), gone(2)}},
		"present in the delete phase":         {messages: []Message{gone(4), here(2)}},
		"end of the other phase":              {messages: []Message{here(1), deleteDone}},
		"end of the present phase, deleting":  {messages: []Message{gone(4), presentDone}},
		"a delete phase that is not the last": {messages: []Message{gone(4), PhaseEnd{Deletes: true}}},
		"present while persisting":            {messages: []Message{deleteDone, here(1)}},
		"a set present while persisting":      {messages: []Message{deleteDone, ids(false, 1)}},
		"refreshed twice":                     {messages: []Message{deleteDone, deleteDone}},
		"a state that does not exist":         {messages: []Message{EntryState{State: 4, UUID: id(1)}}},
		"a subtree leaves":                    {messages: []Message{deleteDone, gone(2)}},
		"a subtree leaves in a set":           {messages: []Message{deleteDone, ids(true, 2, 3, 4)}},
		"a container comes from elsewhere":    {inner: true, messages: []Message{deleteDone, put(Add, 6, "ou=c,dc=x")}},
		"no message":                          {messages: []Message{nil}},
	} {
		t.Run(name, func(t *testing.T) {
			r := tree(t)
			s := Resume(r, tc.inner)
			if tc.fresh {
				s = Start(tc.inner)
			}
			for i, m := range tc.messages {
				err := s.Apply(m)
				if last := i == len(tc.messages)-1; last && tc.want == "" {
					if !errors.Is(err, ErrAnew) {
						t.Fatalf("message %d %+v: %v; want it refused", i, m, err)
					}
					return
				}
				if err != nil {
					t.Fatalf("message %d %+v: %v", i, m, err)
				}
			}
			after, ok := s.Replica()
			if got := names(after.Items()); !ok || got != tc.want {
				t.Errorf("content %s (complete: %v)\nwant    %s", got, ok, tc.want)
			}
			if was := names(r.Items()); was != all {
				t.Errorf("the session changed the replica that it resumed: %s", was)
			}
		})
	}
}

// TestHalfARefreshIsNothing: before its end, a refresh is no snapshot and no replica.
func TestHalfARefreshIsNothing(t *testing.T) {
	s := Start(false)
	for _, m := range []Message{put(Add, 1, "dc=x"), put(Add, 2, "ou=a,dc=x"), NewCookie{"half"}} {
		if err := s.Apply(m); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Replica(); ok {
			t.Fatal("half a refresh is a replica")
		}
		if _, err := s.Snapshot(directory.MustParseDN("dc=x")); err == nil {
			t.Fatal("half a refresh is a snapshot")
		}
	}
}

func TestCookie(t *testing.T) {
	const (
		c1 = "20260101120000.000001Z#000000#001#000000"
		c2 = "20260101120000.000002Z#000000#001#000000"
		d1 = "20260101120000.000001Z#000000#002#000000"
	)
	for _, tc := range []struct{ old, next, want Cookie }{
		{"", "x", "x"}, {"x", "", "x"}, {"x", "y", "y"},
		{"rid=000,csn=" + c1, "rid=000,csn=" + c2, "rid=000,csn=" + c2},
		{"rid=000,csn=" + c1 + ";" + d1, "rid=000,sid=001,csn=" + c2, "rid=000,sid=001,csn=" + c2 + ";" + d1},
		{"rid=000,csn=" + c1, "rid=000,csn=nonsense", "rid=000,csn=nonsense"},
	} {
		if got := tc.old.merge(tc.next); got != tc.want {
			t.Errorf("%q after %q: %q, want %q", tc.next, tc.old, got, tc.want)
		}
	}
	for _, tc := range []struct {
		cookie Cookie
		csns   []string
		want   bool
	}{
		{"rid=000,csn=" + c2, []string{c1}, true}, {"rid=000,csn=" + c1, []string{c2}, false}, {"rid=000,csn=" + c1, []string{c1}, true},
		{"rid=000,csn=" + c2, []string{c1, d1}, false}, {"rid=000,csn=" + c2 + ";" + d1, []string{c1, d1}, true},
		{"opaque", []string{c1}, false}, {"rid=000,csn=" + c1, nil, false}, {"rid=000,csn=" + c1, []string{"?"}, false}, {"", nil, false},
		// 389 Directory Server: the filter in the cookie may hold anything but ends before the last "#".
		{"ldap1:389#cn=reader:dc=bank:(cn=#9)#14", []string{"dataversion=1", "lastchangenumber=14"}, true},
		{"ldap1:389#cn=reader:dc=bank:(cn=a)#13", []string{"lastchangenumber=14"}, false},
		{"ldap1:389#cn=reader:dc=bank:(cn=a)#", []string{"lastchangenumber=14"}, false}, {"#14", []string{"lastchangenumber=14"}, false},
		{"ldap1:389#cn=reader:dc=bank:(cn=a)#14", []string{"lastchangenumber=many"}, false}, {"opaque", []string{"lastchangenumber=0"}, false},
	} {
		if got := tc.cookie.Reaches(tc.csns); got != tc.want {
			t.Errorf("%q reaches %v: %v", tc.cookie, tc.csns, got)
		}
	}
}

// server is the naive model: names by identity, and what a server says of a change.
type server struct{ at map[int]string }

func (m *server) under(name string) []int {
	var below []int
	for n, other := range m.at {
		if directory.MustParseDN(other).IsDescendantOf(directory.MustParseDN(name)) {
			below = append(below, n)
		}
	}
	return below
}

func (m *server) containers() []int {
	var out []int
	for n, name := range m.at {
		if !strings.HasPrefix(name, "cn=") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// change does something at random and returns the identity that the server tells of.
func (m *server) change(t *rapid.T, next int) int {
	nodes := slices.Sorted(maps.Keys(m.at))
	n := rapid.SampledFrom(nodes).Draw(t, "entry")
	up := m.at[rapid.SampledFrom(m.containers()).Draw(t, "container")]
	switch what := rapid.SampledFrom([]string{"add", "add", "move", "delete"}).Draw(t, "what"); {
	case what == "add" || n == 1:
		m.at[next] = fmt.Sprintf("%s=e%d,%s", rapid.SampledFrom([]string{"ou", "cn"}).Draw(t, "type"), next, up)
		return next
	case what == "delete" && len(m.under(m.at[n])) == 0:
		delete(m.at, n)
		return n
	default:
		old := m.at[n]
		if up == old || directory.MustParseDN(up).IsDescendantOf(directory.MustParseDN(old)) {
			return n
		}
		rdn, _, _ := strings.Cut(old, ",")
		below := m.under(old)
		m.at[n] = rdn + "," + up
		for _, b := range below {
			m.at[b] = strings.TrimSuffix(m.at[b], old) + m.at[n]
		}
		return n
	}
}

func (m *server) tell(n int, known bool) Message {
	switch name, ok := m.at[n]; {
	case !ok:
		return gone(n)
	case known:
		return put(Modify, n, name)
	default:
		return put(Add, n, name)
	}
}

func (m *server) String() string {
	items := map[directory.UUID]Item{}
	for n, name := range m.at {
		items[id(n)] = thing(n, name)
	}
	return names(items)
}

// TestSessionFollowsModel: whatever a server does, while the session listens and while it does not, content is the
// server's, by either phase; and a refresh that breaks leaves what was.
func TestSessionFollowsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &server{at: map[int]string{1: "dc=x", 2: "ou=a,dc=x", 3: "ou=b,dc=x"}}
		s := Start(false)
		next := 4
		apply := func(msg Message) {
			if err := s.Apply(msg); err != nil {
				t.Fatalf("%+v: %v", msg, err)
			}
		}
		for n := range m.at {
			apply(put(Add, n, m.at[n]))
		}
		apply(deleteDone)
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for range rapid.IntRange(0, 4).Draw(t, "heard") {
				n := m.change(t, next)
				next++
				_, known := s.content.get(id(n))
				apply(m.tell(n, known))
				if rapid.Bool().Draw(t, "snapshot") {
					checkSnapshot(t, s)
				}
			}
			if got := names(maps.Collect(s.content.all())); got != m.String() {
				t.Fatalf("content %s\nserver  %s", got, m)
			}
			if !rapid.Bool().Draw(t, "breaks") {
				continue
			}
			r, _ := s.Replica()
			told := map[int]bool{}
			for range rapid.IntRange(0, 5).Draw(t, "unheard") {
				told[m.change(t, next)] = true
				next++
			}
			s = Resume(r, false)
			for _, msg := range m.refresh(t, r, told) {
				apply(msg)
				if s.Stage() != Persisting && rapid.IntRange(0, 9).Draw(t, "breaks off") == 0 {
					before := names(r.Items())
					s = Resume(r, false)
					if names(maps.Collect(s.content.all())) != before {
						t.Fatal("a refresh that broke changed the replica")
					}
					for _, msg := range m.refresh(t, r, told) {
						apply(msg)
					}
					break
				}
			}
			if got := names(maps.Collect(s.content.all())); got != m.String() {
				t.Fatalf("content after a refresh %s\nserver  %s", got, m)
			}
			checkSnapshot(t, s)
		}
	})
}

// checkSnapshot compares the snapshot, which is made of the one before, with one of all that is known, and what is known
// afterwards with what was before.
func checkSnapshot(t *rapid.T, s *Session) {
	base := directory.MustParseDN("dc=x")
	b := directory.NewBuilder(base)
	items := maps.Collect(s.content.all())
	for _, item := range items {
		if item.Object != nil {
			b.Add(item.Object)
		}
		b.AddProblem(item.Problems...)
	}
	want, wantErr := b.Build()
	got, err := s.Snapshot(base)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("snapshot: %v; of everything anew: %v", err, wantErr)
	}
	if err == nil && (got.Digest() != want.Digest() || fmt.Sprint(got.Problems()) != fmt.Sprint(want.Problems())) {
		t.Fatalf("the snapshot differs from one of everything anew: %v, %v; want %v", directory.NewDiff(want, got), got.Problems(), want.Problems())
	}
	if after := maps.Collect(s.content.all()); names(after) != names(items) || len(after) != s.content.len {
		t.Fatalf("after the snapshot the content is %s, before %s; it counts %d", names(after), names(items), s.content.len)
	}
}

// refresh is what a server sends of the changes since the replica, in either phase.
func (m *server) refresh(t *rapid.T, r Replica, told map[int]bool) []Message {
	var changed, deleted, sets []Message
	present := IDSet{}
	for _, n := range slices.Sorted(maps.Keys(told)) {
		if _, ok := m.at[n]; ok {
			changed = append(changed, put(Add, n, m.at[n]))
		} else if _, ok := r.content.get(id(n)); ok {
			deleted = append(deleted, gone(n))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(m.at)) {
		if !told[n] {
			present.UUIDs = append(present.UUIDs, id(n))
		}
	}
	if rapid.Bool().Draw(t, "delete phase") {
		return append(rapid.Permutation(append(changed, deleted...)).Draw(t, "order"), deleteDone)
	}
	for chunk := range slices.Chunk(present.UUIDs, 3) {
		sets = append(sets, IDSet{UUIDs: chunk})
	}
	return append(rapid.Permutation(append(changed, sets...)).Draw(t, "order"), presentDone)
}
