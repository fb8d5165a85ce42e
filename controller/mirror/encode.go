package mirror

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
)

// maxEntries bounds what is unpacked: several times the entries of a million machines.
const maxEntries = 1 << 30

// record is one entry of the directory: a line of JSON. Exactly one of the kinds is set.
type record struct {
	UUID      directory.UUID `json:"u"`
	DN        string         `json:"d"`
	Container *struct{}      `json:"c,omitempty"`
	Machine   *machineRecord `json:"m,omitempty"`
	Group     *groupRecord   `json:"g,omitempty"`
}

type machineRecord struct {
	Name         string       `json:"n"`
	DNSName      string       `json:"h,omitempty"`
	Addresses    []netip.Addr `json:"a,omitempty"`
	Disabled     bool         `json:"x,omitempty"`
	PrimaryGroup uint32       `json:"p,omitempty"`
}

type groupRecord struct {
	Name    string   `json:"n"`
	Members []string `json:"m,omitempty"`
	RID     uint32   `json:"r,omitempty"`
}

// encode packs a View: its entries as gzipped lines of JSON.
func encode(v *View) (store.AcceptedDirectory, error) {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	lines := json.NewEncoder(zip)
	write := func(r record) error { return lines.Encode(r) }
	var errs []error
	for c := range v.Snapshot.Containers() {
		errs = append(errs, write(record{UUID: c.UUID, DN: c.DN.String(), Container: &struct{}{}}))
	}
	for m := range v.Snapshot.Machines() {
		errs = append(errs, write(record{UUID: m.UUID, DN: m.DN.String(), Machine: &machineRecord{m.Name, m.DNSName, m.Addresses, m.Disabled, m.PrimaryGroup}}))
	}
	for g := range v.Snapshot.Groups() {
		r := groupRecord{Name: g.Name, RID: g.RID}
		for _, dn := range g.Members {
			r.Members = append(r.Members, dn.String())
		}
		errs = append(errs, write(record{UUID: g.UUID, DN: g.DN.String(), Group: &r}))
	}
	errs = append(errs, zip.Close())
	if err := errors.Join(errs...); err != nil {
		return store.AcceptedDirectory{}, fmt.Errorf("encoding the directory: %w", err)
	}
	accepted := store.AcceptedDirectory{Digest: v.Snapshot.Digest(), Entries: packed.Bytes(), Accepted: v.Accepted}
	for u, gone := range v.Vanished {
		accepted.Tombstones = append(accepted.Tombstones, store.Tombstone{
			Machine: u, Name: gone.Machine.Name, DN: gone.Machine.DN.String(), DNSName: gone.Machine.DNSName,
			Disabled: gone.Machine.Disabled, Since: gone.Since,
		})
	}
	slices.SortFunc(accepted.Tombstones, func(a, b store.Tombstone) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return accepted, nil
}

// restore unpacks what encode packed. Errors wrap store.ErrCorrupt.
func restore(a store.AcceptedDirectory, grace time.Duration) (*View, error) {
	corrupt := func(err error) (*View, error) { return nil, fmt.Errorf("%w: %w", store.ErrCorrupt, err) }
	zip, err := gzip.NewReader(bytes.NewReader(a.Entries))
	if err != nil {
		return corrupt(err)
	}
	lines := json.NewDecoder(io.LimitReader(zip, maxEntries))
	lines.DisallowUnknownFields()
	b := directory.NewBuilder(directory.DN{})
	for {
		var r record
		if err := lines.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return corrupt(err)
		}
		object, err := r.object()
		if err != nil {
			return corrupt(err)
		}
		b.Add(object)
	}
	snapshot, err := b.Build()
	if err != nil {
		return corrupt(err)
	}
	v := &View{Snapshot: snapshot, Accepted: a.Accepted, Restored: true, Vanished: map[directory.UUID]Vanished{}}
	for _, t := range a.Tombstones {
		dn, err := directory.ParseDN(t.DN)
		if err != nil {
			return corrupt(err)
		}
		machine := directory.Machine{UUID: t.Machine, DN: dn, Name: t.Name, DNSName: t.DNSName, Disabled: t.Disabled}
		v.Vanished[t.Machine] = Vanished{Machine: machine, Since: t.Since, Until: t.Since.Add(grace)}
	}
	return v, nil
}

func (r record) object() (directory.Object, error) {
	dn, err := directory.ParseDN(r.DN)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Container != nil:
		return directory.Container{UUID: r.UUID, DN: dn, Kind: directory.KindOf(dn)}, nil
	case r.Machine != nil:
		return directory.Machine{
			UUID: r.UUID, DN: dn, Name: r.Machine.Name, DNSName: r.Machine.DNSName, Addresses: r.Machine.Addresses,
			Disabled: r.Machine.Disabled, PrimaryGroup: r.Machine.PrimaryGroup,
		}, nil
	case r.Group != nil:
		g := directory.Group{UUID: r.UUID, DN: dn, Name: r.Group.Name, RID: r.Group.RID}
		for _, text := range r.Group.Members {
			member, err := directory.ParseDN(text)
			if err != nil {
				return nil, err
			}
			g.Members = append(g.Members, member)
		}
		return g, nil
	}
	return nil, fmt.Errorf("entry %q is of no kind", r.DN)
}
