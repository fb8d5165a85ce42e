package trust_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func sampleGroups(t testing.TB) []byte {
	t.Helper()
	g, err := trust.NewGroups(map[string][]pki.UUID{"CN=a": {{7}, {5}}, "CN=b": nil})
	if err != nil {
		t.Fatal(err)
	}
	der, err := g.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestGroupsContain(t *testing.T) {
	g, err := trust.ParseGroups(sampleGroups(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		group   string
		machine pki.UUID
		want    bool
	}{{"CN=a", pki.UUID{5}, true}, {"CN=a", pki.UUID{6}, false}, {"CN=b", pki.UUID{5}, false}, {"CN=c", pki.UUID{5}, false}, {"", pki.UUID{5}, false}} {
		if got := g.Contains(c.group, c.machine); got != c.want {
			t.Errorf("%v is in %q: %v, want %v", c.machine, c.group, got, c.want)
		}
	}
	if (trust.Groups{}).Contains("CN=a", pki.UUID{5}) {
		t.Error("the empty set has members")
	}
}

func TestGroupsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		member := rapid.Custom(func(t *rapid.T) pki.UUID {
			m := pki.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "machine"))
			m[0] |= 1
			return m
		})
		groups := rapid.MapOf(rapid.StringMatching(`.{1,20}`), rapid.SliceOfN(member, 0, 5)).Draw(t, "groups")
		want, err := trust.NewGroups(groups)
		if err != nil {
			t.Fatal(err)
		}
		der, err := want.Append([]byte("prefix"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := trust.ParseGroups(bytes.TrimPrefix(der, []byte("prefix")))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Names(), want.Names()) {
			t.Fatalf("read back %q, want %q", got.Names(), want.Names())
		}
		for name, members := range groups {
			for _, m := range members {
				if !got.Contains(name, m) {
					t.Fatalf("%v is not in %q any more", m, name)
				}
			}
			if !slices.Equal(got.Members(name), want.Members(name)) {
				t.Fatalf("members of %q: %v, want %v", name, got.Members(name), want.Members(name))
			}
		}
	})
}

func TestParseGroupsRefuses(t *testing.T) {
	good := sampleGroups(t)
	for n := range len(good) {
		if _, err := trust.ParseGroups(good[:n]); !errors.Is(err, trust.ErrGroups) {
			t.Fatalf("the first %d octets of %d give %v, want ErrGroups", n, len(good), err)
		}
	}
	for name, der := range map[string][]byte{
		"trailing octet":         append(bytes.Clone(good), 0),
		"format 2":               bytes.Replace(good, []byte{0x02, 0x01, 0x01}, []byte{0x02, 0x01, 0x02}, 1),
		"members not ascending":  bytes.Replace(good, []byte{0x04, 0x10, 0x07}, []byte{0x04, 0x10, 0x05}, 1),
		"nil UUID":               bytes.Replace(good, []byte{0x04, 0x10, 0x05}, []byte{0x04, 0x10, 0x00}, 1),
		"a group twice":          bytes.Replace(good, []byte("CN=b"), []byte("CN=a"), 1),
		"members of another tag": bytes.Replace(good, []byte{0x04, 0x10, 0x05}, []byte{0x05, 0x10, 0x05}, 1),
		"too large":              make([]byte, trust.MaxGroupsSize+1),
	} {
		if _, err := trust.ParseGroups(der); !errors.Is(err, trust.ErrGroups) {
			t.Errorf("%s gives %v, want ErrGroups", name, err)
		}
	}
	many := make([]pki.UUID, trust.MaxGroupMembers+1)
	for name, groups := range map[string]map[string][]pki.UUID{
		"no name": {"": nil}, "a nil UUID": {"CN=a": {{}}}, "too many members": {"CN=a": many},
		"a long name": {string(make([]byte, trust.MaxGroupName+1)): nil},
	} {
		if _, err := trust.NewGroups(groups); !errors.Is(err, trust.ErrGroups) {
			t.Errorf("%s gives %v, want ErrGroups", name, err)
		}
	}
}

func FuzzGroups(f *testing.F) {
	f.Add(sampleGroups(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		g, err := trust.ParseGroups(der)
		if err != nil {
			if !errors.Is(err, trust.ErrGroups) {
				t.Fatalf("error %v does not wrap ErrGroups", err)
			}
			return
		}
		again, err := g.Append(nil)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x is read and written as %x, %v", der, again, err)
		}
	})
}
