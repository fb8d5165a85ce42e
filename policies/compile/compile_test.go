package compile_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdpb"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

func TestCompileAndOpen(t *testing.T) {
	d := predefined.Documents()
	seen := map[compile.Digest]string{}
	for _, name := range []string{predefined.Client, predefined.Server, predefined.SecureServer, policies.NoneName} {
		b, err := compile.Compile(d, name)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[b.Digest]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[b.Digest] = name
		if b.Digest != sha256.Sum256(b.Policy) {
			t.Errorf("%s: the digest is not that of the bytes", name)
		}
		p, err := compile.Open(b.Policy, b.Digest)
		if err != nil || p.Name != name {
			t.Errorf("%s opens as %q, %v", name, p.Name, err)
		}
		again, err := compile.Compile(predefined.Documents(), name)
		if err != nil || again.Digest != b.Digest || !bytes.Equal(again.Policy, b.Policy) {
			t.Errorf("%s: compiling again gives %s after %s, %v", name, again.Digest, b.Digest, err)
		}
	}
	if _, err := compile.Compile(d, "nobody"); !errors.Is(err, policies.ErrReference) {
		t.Errorf("got %v, want %v", err, policies.ErrReference)
	}
}

func TestNonePermitsEverything(t *testing.T) {
	b := compile.None()
	p, err := compile.Open(b.Policy, b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 0 || p.DefaultResponse.Active || p.Name != policies.NoneName {
		t.Fatalf("got %+v", p)
	}
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(p, spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		if m := set.Lookup(spd.In, spdtest.Packet().Draw(t, "packet")); m.Action != spd.ActionPermit {
			t.Fatalf("got %s", m.Action)
		}
	})
}

func TestOpenRefusesWhatWasAltered(t *testing.T) {
	b, err := compile.Compile(predefined.Documents(), predefined.Server)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Policy {
		altered := bytes.Clone(b.Policy)
		altered[i] ^= 1
		if _, err := compile.Open(altered, b.Digest); !errors.Is(err, compile.ErrDigest) {
			t.Fatalf("octet %d altered: got %v", i, err)
		}
		if _, err := compile.Open(b.Policy[:i], b.Digest); !errors.Is(err, compile.ErrDigest) {
			t.Fatalf("cut to %d octets: got %v", i, err)
		}
	}
	for name, b := range map[string][]byte{"no protobuf": {0xff, 0xff}, "a policy that is not valid": {0x12, 0}} {
		if _, err := compile.Open(b, sha256.Sum256(b)); !errors.Is(err, spdpb.ErrMalformed) && !errors.Is(err, spdpb.ErrUnknown) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSealAndOpenAreLossless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := spdtest.Policy().Draw(t, "policy")
		b, err := compile.Seal(p)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := compile.Open(b.Policy, b.Digest)
		if err != nil {
			t.Fatal(err)
		}
		again, err := compile.Seal(opened)
		if err != nil || again.Digest != b.Digest {
			t.Fatalf("%s became %s: %v", b.Digest, again.Digest, err)
		}
	})
}

func TestSealRefusesAnInvalidPolicy(t *testing.T) {
	for _, p := range []spd.Policy{{Rules: []spd.Rule{{}}}, {Name: "\xff"}} {
		if b, err := compile.Seal(p); err == nil {
			t.Errorf("%+v became %s", p, b.Digest)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := compile.None().Digest
	got, err := compile.ParseDigest(d.String())
	if err != nil || got != d || len(d.Short()) != 16 {
		t.Errorf("got %s, %v; want %s", got, err, d)
	}
	for _, s := range []string{"", "xyz", d.Short(), d.String() + "00", "zz" + d.String()[2:]} {
		if _, err := compile.ParseDigest(s); err == nil {
			t.Errorf("%q is accepted as a digest", s)
		}
	}
}

func FuzzOpenBundle(f *testing.F) {
	for _, name := range []string{predefined.Client, predefined.Server, predefined.SecureServer} {
		b, err := compile.Compile(predefined.Documents(), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b.Policy)
	}
	f.Add(compile.None().Policy)
	text, err := os.ReadFile("../testdata/language.yaml")
	if err != nil {
		f.Fatal(err)
	}
	words, err := policies.Decode("language.yaml", text)
	if err != nil {
		f.Fatal(err)
	}
	b, err := compile.Compile(words, "Partner")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Policy)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := compile.Open(b, sha256.Sum256(b))
		if err != nil {
			return
		}
		f := spd.Facts{Names: map[string][]netip.Addr{}}
		for _, name := range p.HostNames() {
			f.Names[name] = nil
		}
		if _, err := spd.Expand(p, f); err != nil {
			t.Fatalf("an opened bundle does not expand: %v", err)
		}
		if _, err := compile.Seal(p); err != nil {
			t.Fatalf("an opened bundle does not seal: %v", err)
		}
	})
}
