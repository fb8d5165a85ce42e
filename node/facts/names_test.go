package facts

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted answers lookups by name; a name without an answer fails.
type scripted struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr
	asked   []string
	hang    bool // until the context ends
}

func (s *scripted) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, name)
	if s.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if list, ok := s.answers[name]; ok {
		return list, nil
	}
	return nil, &net.DNSError{Err: "server misbehaving", Name: name, Server: "192.0.2.53:53"}
}

func (s *scripted) set(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.answers, name)
	for _, a := range addresses {
		s.answers[name] = append(s.answers[name], netip.MustParseAddr(a))
	}
}

// askedFor tells who was asked for since the last call.
func (s *scripted) askedFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Sorted(slices.Values(s.asked))
	s.asked = nil
	return strings.Join(out, " ")
}

func sleep(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &scripted{answers: map[string][]netip.Addr{}}
		dns.set("a.example", "::ffff:192.0.2.2", "192.0.2.1", "192.0.2.2")
		names, changes := NewNames(dns.lookup), 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- names.Run(ctx, func() { changes++ }) }()
		synctest.Wait()
		show := func() string { return fmt.Sprint(names.Answers()) }

		names.Want([]string{"a.example", "b.example"})
		names.Await(ctx)
		synctest.Wait()
		if got := show(); got != "map[a.example:[192.0.2.1 192.0.2.2]]" || changes != 1 {
			t.Errorf("got %s after %d changes", got, changes)
		}
		if got := names.Problems(); len(got) != 1 || got[0] != "dns:b.example of the policy was never resolved: the resolver failed" {
			t.Errorf("problems %q", got)
		}
		if got := dns.askedFor(); got != "a.example b.example" {
			t.Errorf("asked for %q", got)
		}
		sleep(40 * time.Second) // 5, 10, 20 s after each failure
		if got := dns.askedFor(); got != "b.example b.example b.example" {
			t.Errorf("asked for %q within 40 s", got)
		}
		dns.set("a.example")
		dns.set("b.example", "2001:db8::1")
		sleep(time.Minute)
		if got := show(); got != "map[a.example:[192.0.2.1 192.0.2.2] b.example:[2001:db8::1]]" || changes != 2 {
			t.Errorf("got %s after %d changes", got, changes)
		}
		if got := names.Problems(); len(got) != 1 || !strings.Contains(got[0], "dns:a.example of the policy cannot be resolved since 2000-01-01T00:01:00Z, its last addresses stay") {
			t.Errorf("problems %q", got)
		}

		// An answer of an earlier process counts where this one has none, and no other.
		names.Want([]string{"a.example", "c.example"})
		names.Seed(map[string][]netip.Addr{"a.example": {netip.MustParseAddr("192.0.2.9")}, "c.example": {netip.MustParseAddr("192.0.2.9")}, "d.example": nil})
		if got := show(); got != "map[a.example:[192.0.2.1 192.0.2.2] c.example:[192.0.2.9]]" {
			t.Errorf("got %s", got)
		}

		// Too many addresses, and none, are failures.
		var many []string
		for i := range maxNameAddresses + 1 {
			many = append(many, fmt.Sprintf("10.0.0.%d", i))
		}
		dns.set("a.example", many...)
		sleep(2 * time.Minute)
		if got := names.Problems(); len(got) != 2 || !strings.HasSuffix(got[0], "it has 65 addresses, more than 64") || len(names.Answers()["a.example"]) != 2 {
			t.Errorf("problems %q", got)
		}

		// Who waits is not kept by a resolver that is silent.
		dns.mu.Lock()
		dns.hang = true
		dns.mu.Unlock()
		names.Want([]string{"e.example"})
		begin := time.Now()
		bounded, stop := context.WithTimeout(ctx, 3*time.Second)
		names.Await(bounded)
		stop()
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("waited %s", waited)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// dnsServer answers one query of a resolver on a pipe: each type of record with what it is given, or with an error code.
func dnsServer(conn net.Conn, records map[uint16][]netip.Addr, codes map[uint16]byte) {
	defer conn.Close()
	buffer := make([]byte, 1500)
	n, err := conn.Read(buffer) // two octets of length: the resolver takes a pipe for TCP
	if err != nil || n < 2+12 {
		return
	}
	query := buffer[2:n]
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	kind := binary.BigEndian.Uint16(query[end-4:])
	reply := append([]byte{}, query[:end]...)
	copy(reply[2:12], []byte{0x81, 0x80 | codes[kind], 0, 1, 0, byte(len(records[kind])), 0, 0, 0, 0})
	for _, a := range records[kind] {
		reply = append(reply, 0xc0, 12)
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = append(reply, 0, 1, 0, 0, 0, 60)
		reply = binary.BigEndian.AppendUint16(reply, uint16(len(a.AsSlice())))
		reply = append(reply, a.AsSlice()...)
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
}

// Half an answer is none: the addresses of the other family would be missing without anybody knowing.
func TestResolve(t *testing.T) {
	const a, aaaa, nameError, serverFailure = 1, 28, 3, 2
	four, six := []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []netip.Addr{netip.MustParseAddr("2001:db8::1")}
	for _, test := range []struct {
		name    string
		records map[uint16][]netip.Addr
		codes   map[uint16]byte
		want    string
		missing bool // the error says that there is no such name
	}{
		{"both", map[uint16][]netip.Addr{a: four, aaaa: six}, nil, "[192.0.2.1 2001:db8::1]", false},
		{"only IPv6", map[uint16][]netip.Addr{aaaa: six}, nil, "[2001:db8::1]", false},
		{"no such name", nil, map[uint16]byte{a: nameError, aaaa: nameError}, "[]", true},
		{"no address", nil, nil, "[]", true},
		{"IPv6 fails", map[uint16][]netip.Addr{a: four}, map[uint16]byte{aaaa: serverFailure}, "[]", false},
		{"IPv4 fails", map[uint16][]netip.Addr{aaaa: six}, map[uint16]byte{a: serverFailure}, "[]", false},
	} {
		resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go dnsServer(server, test.records, test.codes)
			return client, nil
		}}
		got, err := resolve(t.Context(), resolver, "web.partner.example")
		if fmt.Sprint(got) != test.want || (err == nil) != (len(got) > 0) {
			t.Errorf("%s: got %v and error %v, want %s", test.name, got, err, test.want)
		}
		if err != nil && (cause(err) == "the name does not exist or has no address") != test.missing {
			t.Errorf("%s: the cause is %q", test.name, cause(err))
		}
	}
}

func TestEqualSeesNames(t *testing.T) {
	a, err := Gather(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	b := a
	b.Names = map[string][]netip.Addr{"a.example": {netip.MustParseAddr("192.0.2.1")}}
	c := b
	c.Names = maps.Clone(b.Names)
	if Equal(a, b) || !Equal(b, c) {
		t.Error("facts with another answer count as equal, or with the same one as different")
	}
}
