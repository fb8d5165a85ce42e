package samba_test

import (
	"context"
	"errors"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
)

// TestDomainController makes a domain, changes it, and has what was saved back after a restart.
func TestDomainController(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dc, err := samba.Start(ctx, samba.Options{Prefix: "bwdc-"})
	if errors.Is(err, samba.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dc.Close(); err != nil {
			t.Error(err)
		}
	})
	exists := func() bool {
		t.Helper()
		conn, err := dc.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = conn.Search(goldap.NewSearchRequest("OU=A,"+dc.Base, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"ou"}, nil))
		if err != nil && !goldap.IsErrorWithCode(err, goldap.LDAPResultNoSuchObject) {
			t.Fatal(err)
		}
		return err == nil
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"stop", dc.Stop}, {"save", dc.Save}, {"run", func() error { return dc.Run(ctx) }},
		{"add", func() error {
			conn, err := dc.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			add := goldap.NewAddRequest("OU=A,"+dc.Base, nil)
			add.Attribute("objectClass", []string{"organizationalUnit"})
			return conn.Add(add)
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v\n%s", s.name, err, dc.Log())
		}
	}
	if !exists() {
		t.Error("what was added is not there")
	}
	for _, f := range []func() error{dc.Stop, dc.Restore, func() error { return dc.Run(ctx) }} {
		if err := f(); err != nil {
			t.Fatal(err, dc.Log())
		}
	}
	if exists() {
		t.Error("what was added after the backup is there after it was restored")
	}
}
