package directory

import (
	"errors"
	"strings"
	"testing"
)

// town is dc=x with OUs A, B and A/Inner, machines m1 in A, m2 in Inner, and a group of both.
func town(t *testing.T) *Snapshot {
	t.Helper()
	b := NewBuilder(MustParseDN("dc=x"))
	for _, dn := range []string{"dc=x", "OU=A,dc=x", "OU=B,dc=x", `OU=In\,ner,OU=A,dc=x`} {
		d := MustParseDN(dn)
		b.Add(Container{UUID: deriveUUID("container", "", dn), DN: d, Kind: KindOf(d)})
	}
	for name, dn := range map[string]string{"m1": "cn=m1,OU=A,dc=x", "m2": `cn=m2,OU=In\,ner,OU=A,dc=x`} {
		b.Add(Machine{UUID: deriveUUID("machine", "", name), DN: MustParseDN(dn), Name: name})
	}
	b.Add(Group{UUID: deriveUUID("group", "", "g"), DN: MustParseDN("cn=g,OU=A,dc=x"), Name: "g",
		Members: []DN{MustParseDN("cn=m1,ou=a,dc=x"), MustParseDN(`cn=m2,ou=in\,ner,ou=a,dc=x`)}})
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMoveMachine(t *testing.T) {
	before := town(t)
	after, err := before.Move(MustParseDN("cn=M1,ou=a,dc=x"), MustParseDN("ou=b,dc=x"))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := after.MachineByName("m1")
	if !ok || m.DN.String() != "cn=m1,OU=B,dc=x" {
		t.Errorf("m1 is at %v, wanted it in B with the directory's spelling", m.DN)
	}
	if !after.IsMember(m.DN, MustParseDN("cn=g,ou=a,dc=x")) {
		t.Error("m1 left its group by moving")
	}
	d := NewDiff(before, after)
	if c := d.Counts(); c.Moved != 1 || len(d.Changed) != 1 || len(d.Added)+len(d.Removed) != 0 {
		t.Errorf("the move is seen as %v", d)
	}
	if old, _ := before.MachineByName("m1"); old.DN.String() != "cn=m1,OU=A,dc=x" {
		t.Errorf("the snapshot before changed: %v", old.DN)
	}
}

func TestMoveContainerTakesEverythingBelowAlong(t *testing.T) {
	before := town(t)
	after, err := before.Move(MustParseDN("ou=a,dc=x"), MustParseDN("ou=b,dc=x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dn := range []string{"OU=A,OU=B,dc=x", `OU=In\,ner,OU=A,OU=B,dc=x`, "cn=m1,OU=A,OU=B,dc=x", `cn=m2,OU=In\,ner,OU=A,OU=B,dc=x`, "cn=g,OU=A,OU=B,dc=x"} {
		if o, ok := after.ObjectByDN(MustParseDN(dn)); !ok {
			t.Errorf("%s is not there", dn)
		} else if _, at := o.Identity(); at.String() != dn {
			t.Errorf("%s is spelled %s", dn, at)
		}
	}
	if _, ok := after.ContainerByDN(MustParseDN("OU=A,dc=x")); ok {
		t.Error("the container is still at its old place")
	}
	if d := NewDiff(before, after); d.Counts().Moved != 2 || d.Counts().Regrouped != 0 {
		t.Errorf("the move is seen as %v", d)
	}
	back, err := after.Move(MustParseDN("ou=a,ou=b,dc=x"), MustParseDN("dc=x"))
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != before.Digest() {
		t.Error("there and back is not where it was")
	}
}

func TestMoveRefuses(t *testing.T) {
	s := town(t)
	twin := NewBuilder(s.Base())
	for c := range s.Containers() {
		twin.Add(c)
	}
	for m := range s.Machines() {
		twin.Add(m)
	}
	d := MustParseDN("OU=A,OU=B,dc=x")
	twin.Add(Container{UUID: deriveUUID("container", "", "twin"), DN: d, Kind: KindOf(d)})
	taken, err := twin.Build()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		in       *Snapshot
		dn, to   string
		want     error
		sentence string
	}{
		"nobody":        {s, "cn=m9,dc=x", "OU=B,dc=x", ErrMove, `there is no entry "cn=m9,dc=x"`},
		"to nowhere":    {s, "cn=m1,OU=A,dc=x", "OU=C,dc=x", ErrMove, `there is no container "OU=C,dc=x"`},
		"to a machine":  {s, "cn=m1,OU=A,dc=x", `cn=m2,OU=In\,ner,OU=A,dc=x`, ErrMove, "there is no container"},
		"the base":      {s, "dc=x", "OU=B,dc=x", ErrMove, "is the base"},
		"into itself":   {s, "OU=A,dc=x", "OU=A,dc=x", ErrMove, "is in \"OU=A,dc=x\" itself"},
		"below itself":  {s, "OU=A,dc=x", `OU=In\,ner,OU=A,dc=x`, ErrMove, "itself"},
		"where it is":   {s, "cn=m1,OU=A,dc=x", "OU=A,dc=x", ErrMove, "already"},
		"name is taken": {taken, "OU=A,dc=x", "OU=B,dc=x", ErrInconsistent, "OU=A,OU=B,dc=x"},
	} {
		t.Run(name, func(t *testing.T) {
			to, err := ParseDN(test.to)
			if err != nil {
				t.Fatal(err)
			}
			_, err = test.in.Move(MustParseDN(test.dn), to)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.sentence) {
				t.Errorf("got %v, wanted %v with %q", err, test.want, test.sentence)
			}
		})
	}
}
