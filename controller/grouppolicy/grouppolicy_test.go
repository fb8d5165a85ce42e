package grouppolicy_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
)

var (
	domain        = directory.MustParseDN("DC=lab,DC=example")
	configuration = directory.MustParseDN("CN=Configuration,DC=lab,DC=example")
)

// forest has one site, whose subnets are told read by read.
type forest struct {
	subnets []string // of each read
	reads   int
	hidden  bool // the reader may see none
	err     error
}

func (f *forest) Contexts() (a, b directory.DN, err error) { return domain, configuration, f.err }
func (f *forest) Close()                                   {}

func (f *forest) Entries(base directory.DN, filter string, _ []string) ([]directory.Entry, error) {
	if filter != gpipsec.SiteFilter() || !base.Equal(configuration) || f.hidden {
		return nil, nil
	}
	subnet := f.subnets[min(f.reads, len(f.subnets)-1)]
	f.reads++
	site := "CN=Vienna,CN=Sites," + configuration.String()
	return []directory.Entry{
		{DN: site, Attributes: []directory.Attribute{{Name: "objectClass", Values: []string{"site"}}}},
		{DN: "CN=" + subnet + ",CN=Subnets,CN=Sites," + configuration.String(), Attributes: []directory.Attribute{
			{Name: "objectClass", Values: []string{"subnet"}}, {Name: "siteObject", Values: []string{site}},
		}},
	}, nil
}

// keeper takes documents.
type keeper struct {
	docs  policies.Documents
	times int
	err   error
}

func (k *keeper) replace(_ context.Context, owner string, docs policies.Documents) (grouppolicy.Written, error) {
	if owner != "group-policy:lab" {
		return grouppolicy.Written{}, errors.New("owner " + owner)
	}
	if k.err != nil {
		return grouppolicy.Written{}, k.err
	}
	k.docs = docs
	k.times++
	return grouppolicy.Written{Changed: 1, Kept: []string{`Site "Graz"`}}, nil
}

func follower(f *forest, k *keeper, assignment bool) *grouppolicy.Follower {
	return grouppolicy.New(grouppolicy.Config{
		Source: "lab", Base: domain, Assignment: assignment, Replace: k.replace,
		Open: func(context.Context) (grouppolicy.Reader, error) { return f, nil },
	})
}

func TestSites(t *testing.T) {
	f, k := &forest{subnets: []string{"10.1.0.0/16"}}, &keeper{}
	g := follower(f, k, false)
	if err := g.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := g.Status()
	if len(k.docs.Sites) != 1 || k.docs.Sites[0].Name != "Vienna" || st.Sites != 1 || st.LastRead.IsZero() || st.LastError != "" {
		t.Errorf("documents %+v, status %+v", k.docs, st)
	}
	if !strings.Contains(strings.Join(st.Notes, "\n"), `Site "Graz" was written by somebody else`) {
		t.Errorf("notes %q", st.Notes)
	}
}

// TestWake: what was released is read again at once.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, k := &forest{subnets: []string{"10.1.0.0/16"}}, &keeper{err: grouppolicy.ErrHeld}
		g := follower(f, k, false)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		if k.times != 0 || !strings.Contains(g.Status().LastError, "mass-change guard") {
			t.Errorf("written %d times, status %+v", k.times, g.Status())
		}
		k.err = nil
		g.Wake()
		synctest.Wait()
		if k.times != 1 || g.Status().LastError != "" {
			t.Errorf("written %d times, status %+v", k.times, g.Status())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if owner := grouppolicy.Owner("lab"); grouppolicy.Source(owner) != "lab" {
		t.Errorf("%s is of source %s", owner, grouppolicy.Source(owner))
	}
}

// TestWhatIsInDoubtChangesNothing has every step fail: the documents of before stay, and the status tells.
func TestWhatIsInDoubtChangesNothing(t *testing.T) {
	f, k := &forest{subnets: []string{"10.1.0.0/16"}}, &keeper{}
	g := follower(f, k, false)
	if err := g.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := g.Status().LastRead
	failed := errors.New("no route to the domain controller")
	for name, test := range map[string]struct {
		prepare func()
		want    error
	}{
		"two reads differ": {func() { f.subnets, f.reads = []string{"10.1.0.0/16", "10.2.0.0/16"}, 0 }, grouppolicy.ErrUnstable},
		"hidden":           {func() { f.hidden = true }, gpipsec.ErrUnknown},
		"unreachable":      {func() { f.err = failed }, failed},
		"refused":          {func() { f.err, f.subnets, k.err = nil, []string{"10.3.0.0/16"}, failed }, failed},
	} {
		*f, k.err = forest{subnets: []string{"10.1.0.0/16"}}, nil
		test.prepare()
		if err := g.Once(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
		if st := g.Status(); k.times != 1 || st.LastError == "" || !st.LastRead.Equal(first) || st.Sites != 1 {
			t.Errorf("%s: written %d times, status %+v", name, k.times, st)
		}
	}
	// Native assignment of a part of a domain, and of a domain without policies, is none.
	for base, want := range map[string]string{"OU=A,DC=lab,DC=example": "needs the whole domain", "DC=lab,DC=example": "no IPsec policy"} {
		g := grouppolicy.New(grouppolicy.Config{
			Source: "lab", Base: directory.MustParseDN(base), Assignment: true, Replace: k.replace,
			Open: func(context.Context) (grouppolicy.Reader, error) {
				return &forest{subnets: []string{"10.1.0.0/16"}}, nil
			},
		})
		if err := g.Once(t.Context()); err == nil || !strings.Contains(err.Error(), want) || k.times != 1 {
			t.Errorf("%s: error %v, want %q; written %d times", base, err, want, k.times)
		}
	}
}
