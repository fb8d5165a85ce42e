package ldap

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// answerRanges plays the part of Active Directory that OpenLDAP does not have: it answers each search for
// "member;range=N-*" with at most step of the members from N on, as MS-ADTS 3.1.1.3.1.3.3 says. With a negative step it
// leaves the attribute out. Each answer lacks as many values of its range as short says.
func answerRanges(conn net.Conn, members []string, step, short int) {
	for {
		request, err := ber.ReadPacket(conn)
		if err != nil || len(request.Children) < 2 || request.Children[1].Tag != goldap.ApplicationSearchRequest {
			return
		}
		operation := request.Children[1]
		want := operation.Children[7].Children[0].Data.String()
		var from int
		if _, err := fmt.Sscanf(want, "member;range=%d-*", &from); err != nil {
			return
		}
		attributes := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
		if step > 0 && from < len(members) {
			to := min(from+step, len(members))
			last := fmt.Sprint(to - 1)
			if to == len(members) {
				last = "*"
			}
			values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
			for _, m := range members[from:max(from, to-short)] {
				values.AppendChild(octetString(m))
			}
			attribute := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
			attribute.AppendChild(octetString(fmt.Sprintf("member;range=%d-%s", from, last)))
			attribute.AppendChild(values)
			attributes.AppendChild(attribute)
		}
		entry := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationSearchResultEntry, nil, "")
		entry.AppendChild(octetString(operation.Children[0].Data.String()))
		entry.AppendChild(attributes)
		done := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationSearchResultDone, nil, "")
		done.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, 0, ""))
		done.AppendChild(octetString(""))
		done.AppendChild(octetString(""))
		for _, op := range []*ber.Packet{entry, done} {
			message := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
			message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, request.Children[0].Value, ""))
			message.AppendChild(op)
			if _, err := conn.Write(message.Bytes()); err != nil {
				return
			}
		}
	}
}

func TestRangedRetrieval(t *testing.T) {
	members := make([]string, 4000)
	for i := range members {
		members[i] = fmt.Sprintf("CN=m%d,DC=x", i)
	}
	schema := directory.ActiveDirectory()
	const begin = "member;range=0-1499"
	for name, tc := range map[string]struct {
		first       string // what comes with the entry, with the first 1500 members
		step, short int
		kind        error
	}{
		"three ranges":                 {begin, 1500, 0, nil},
		"ranges of 999":                {begin, 999, 0, nil},
		"nothing more":                 {begin, -1, 0, ErrUnstable},
		"less than it says":            {begin, 1000, 1, ErrUnstable},
		"ranges without value":         {begin, 1, 1, ErrUnstable},
		"less with the entry":          {"member;range=0-1500", 1500, 0, ErrUnstable},
		"more with the entry":          {"member;range=0-1498", 1500, 0, ErrUnstable},
		"not the first with the entry": {"member;range=1-1500", 1500, 0, ErrUnstable},
		"only the last with the entry": {"member;range=2500-*", 1500, 0, ErrUnstable},
		"what is no range":             {"member;range=0-1499x", 1500, 0, ErrUnstable},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				answerRanges(far, members, tc.step, tc.short)
			}()
			below := newTap(near)
			conn := goldap.NewConn(below, false)
			conn.SetTimeout(5 * time.Second)
			conn.Start()
			defer func() {
				conn.Close()
				far.Close()
				<-ended
			}()
			s := &session{target{Config: Config{URL: "ldaps://dc1", Base: base, Schema: &schema, Bind: Anonymous{}}}, conn, below}
			got, err := s.complete("CN=g,DC=x", directory.Attribute{Name: tc.first, Values: slices.Clone(members[:1500])})
			if !errors.Is(err, tc.kind) {
				t.Fatalf("complete: %v, want %v", err, tc.kind)
			}
			if err != nil {
				if len(got.Values) != 0 || !strings.Contains(err.Error(), "CN=g,DC=x") {
					t.Errorf("half a group (%d members) or no name: %v", len(got.Values), err)
				}
				return
			}
			if got.Name != "member" || !slices.Equal(got.Values, members) {
				t.Errorf("%d values of %s, want all %d members in order", len(got.Values), got.Name, len(members))
			}
		})
	}
}
