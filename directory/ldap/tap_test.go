package ldap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
)

// pieces is a connection that returns what it holds in pieces of the given sizes, in turns, and then an end.
type pieces struct {
	net.Conn
	data  []byte
	sizes []int
	turn  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.sizes[p.turn%len(p.sizes)])], p.data)
	p.turn++
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) { return len(b), nil }

func ldapMessage(id int64, op *ber.Packet, more ...*ber.Packet) []byte {
	m := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	m.AppendChild(op)
	for _, c := range more {
		m.AppendChild(c)
	}
	return m.Bytes()
}

func application(tag ber.Tag, children ...*ber.Packet) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	for _, c := range children {
		p.AppendChild(c)
	}
	return p
}

func searchMessage(id int64, scope int) []byte {
	return ldapMessage(id, application(goldap.ApplicationSearchRequest, octetString("dc=x"),
		ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(scope), "")))
}

func drawEntry(t *rapid.T) directory.Entry {
	text := rapid.StringN(0, 20, 300)
	e := directory.Entry{DN: text.Draw(t, "dn")}
	for range rapid.IntRange(0, 3).Draw(t, "attributes") {
		e.Attributes = append(e.Attributes, directory.Attribute{Name: text.Draw(t, "name"), Values: rapid.SliceOfN(text, 0, 3).Draw(t, "values")})
	}
	return e
}

// TestTap sends messages of several operations in pieces of any size. The client sees all but the entries, references
// and intermediate responses of the search that was announced; those come to the intake, whole and in order.
func TestTap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream, forClient, forIntake []byte
		var entries []directory.Entry
		over := false
		for range rapid.IntRange(0, 12).Draw(t, "messages") {
			id := rapid.SampledFrom([]int64{1, 2, 300}).Draw(t, "operation")
			var m []byte
			mine := id == 2 && !over
			switch rapid.SampledFrom([]string{"entry", "entry", "done", "reference", "intermediate"}).Draw(t, "kind") {
			case "entry":
				e := drawEntry(t)
				m = ldapMessage(id, entryPacket(e))
				if mine {
					entries = append(entries, e)
				}
			case "done":
				m = ldapMessage(id, application(goldap.ApplicationSearchResultDone, ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, 0, "")))
				over = over || mine
				mine = false
			case "reference":
				m = ldapMessage(id, application(goldap.ApplicationSearchResultReference, octetString("ldap://elsewhere")))
			case "intermediate":
				m = ldapMessage(id, application(goldap.ApplicationIntermediateResponse, octetString("1.2.3")))
			}
			stream = append(stream, m...)
			if mine {
				forIntake = append(forIntake, m...)
			} else {
				forClient = append(forClient, m...)
			}
		}
		below := newTap(&pieces{data: stream, sizes: rapid.SliceOfN(rapid.IntRange(1, 200), 1, 5).Draw(t, "pieces")})
		in := newIntake(0)
		below.announce(in)
		for _, request := range [][]byte{searchMessage(1, goldap.ScopeBaseObject), searchMessage(2, goldap.ScopeWholeSubtree), searchMessage(300, goldap.ScopeWholeSubtree)} {
			if _, err := below.Write(request); err != nil {
				t.Fatal(err)
			}
		}
		var got []byte
		buf := make([]byte, rapid.IntRange(1, 100).Draw(t, "buffer"))
		for {
			n, err := below.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
		}
		if !bytes.Equal(got, forClient) {
			t.Fatalf("the client gets %x, want %x", got, forClient)
		}
		taken := slices.Concat(in.take()...)
		if !bytes.Equal(taken, forIntake) {
			t.Fatalf("the intake gets %x, want %x", taken, forIntake)
		}
		var d decoder
		i := 0
		err := d.each(taken, func(r received) error {
			if r.op == opSearchResultEntry {
				if is, want := fmt.Sprintf("%q", r.entry), fmt.Sprintf("%q", entries[i]); strings.ReplaceAll(is, "[]", "") != strings.ReplaceAll(want, "[]", "") {
					t.Fatalf("entry %s, want %s", is, want)
				}
				i++
			}
			return nil
		})
		if err != nil || i != len(entries) {
			t.Fatalf("%d of %d entries, %v", i, len(entries), err)
		}
	})
}

// TestTapRefuses: what is no message ends the connection, and nothing of it reaches the client, which might read an entry
// in it.
func TestTapRefuses(t *testing.T) {
	good := ldapMessage(2, entryPacket(directory.Entry{DN: "cn=a"}))
	for name, data := range map[string][]byte{
		"no message":            []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"an indefinite length":  append([]byte{0x30, 0x80, 0x02, 0x01, 0x02, 0x64, 0x00, 0x00, 0x00}, make([]byte, 30)...),
		"a length of six bytes": append([]byte{0x30, 0x86, 0, 0, 0, 0, 0, byte(len(good) - 2)}, append(good[2:], make([]byte, 30)...)...),
		"far too long":          {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x02, 0x64},
		"no message ID":         {0x30, 0x03, 0x04, 0x01, 0x02},
		"a negative message ID": {0x30, 0x05, 0x02, 0x01, 0xff, 0x64, 0x00},
	} {
		below := newTap(&pieces{data: data, sizes: []int{3}})
		got, err := io.ReadAll(below)
		if !errors.Is(err, errDecode) || len(got) > 0 {
			t.Errorf("%s: the client gets %x, %v", name, got, err)
		}
	}
}

// TestTapOfCutMessage: a connection that ends within a message hands nothing of it over.
func TestTapOfCutMessage(t *testing.T) {
	whole := ldapMessage(2, entryPacket(directory.Entry{DN: "cn=a", Attributes: []directory.Attribute{{Name: "cn", Values: []string{"a"}}}}))
	for cut := range len(whole) {
		below := newTap(&pieces{data: whole[:cut], sizes: []int{4}})
		in := newIntake(0)
		below.announce(in)
		if _, err := below.Write(searchMessage(2, goldap.ScopeWholeSubtree)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(below); err != nil || len(got) > 0 || len(in.take()) > 0 {
			t.Errorf("of %d octets the client gets %x, %v", cut, got, err)
		}
	}
}

// FuzzDecode reads any octets as messages of a search. What is an entry to both is the same to the client's decoder.
func FuzzDecode(f *testing.F) {
	f.Add(ldapMessage(2, entryPacket(directory.Entry{DN: "cn=a", Attributes: []directory.Attribute{{Name: "cn", Values: []string{"a", ""}}, {Name: "member"}}})))
	f.Add(ldapMessage(70000, application(goldap.ApplicationSearchResultReference, octetString("ldap://elsewhere"))))
	f.Add(ldapMessage(2, application(goldap.ApplicationIntermediateResponse, octetString("1.2.3"))))
	f.Add(ldapMessage(2, entryPacket(directory.Entry{DN: "cn=a"}), ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		err := d.each(data, func(r received) error {
			if r.op != opSearchResultEntry {
				return nil
			}
			if _, err := syncStates(r.controls); err != nil {
				return err
			}
			_, rest, _ := element(data, tagSequence)
			p, err := ber.DecodePacketErr(data[:len(data)-len(rest)])
			if err != nil || len(p.Children) < 2 || len(p.Children[1].Children) < 2 {
				return errDecode
			}
			e := p.Children[1]
			if name := e.Children[0].Data.String(); name != r.entry.DN {
				t.Fatalf("entry %q, to the client %q", r.entry.DN, name)
			}
			if n := len(e.Children[1].Children); n != len(r.entry.Attributes) {
				t.Fatalf("%d attributes, to the client %d", len(r.entry.Attributes), n)
			}
			for i, a := range e.Children[1].Children {
				mine := r.entry.Attributes[i]
				if name := a.Children[0].Data.String(); name != mine.Name || len(a.Children[1].Children) != len(mine.Values) {
					t.Fatalf("attribute %+v, to the client %q with %d values", mine, name, len(a.Children[1].Children))
				}
				for j, v := range a.Children[1].Children {
					if v.Data.String() != mine.Values[j] {
						t.Fatalf("value %q of %s, to the client %q", mine.Values[j], mine.Name, v.Data.String())
					}
				}
			}
			return errDecode // the first one is enough
		})
		if err != nil && !errors.Is(err, errDecode) {
			t.Fatal(err)
		}
	})
}
