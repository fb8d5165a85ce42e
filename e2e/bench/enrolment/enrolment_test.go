package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's program be the machines as well, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == roleArgument {
		if err := obey(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Everything that is measured happens, with a few machines: none goes without, and the report has all of its lines.
func TestFewMachines(t *testing.T) {
	const machines = 4
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = options{}.scene(t.Context(), exec.CommandContext(t.Context(), program, roleArgument), machines, func(s *scene) error {
		renewal, err := s.costs(t.Context(), &out, map[string]bool{"join": true, "renew": true})
		if err != nil {
			return err
		}
		return errors.Join(s.back(t.Context(), &out, time.Second), s.bareCosts(&out, renewal))
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"a machine joins with a token (4 machines", "a machine renews its certificate over mutual TLS (4 machines", "2 x verify the machine's certificate",
		"nothing but the cryptography (4 machines", "is what that server takes",
		"4 machines come back within 1s", "the last certificate", "sent away 0 times",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, out.String())
		}
	}
}

// Machines whose certificates end soon come back as well, and the report says when those ended.
func TestCertificatesThatEndSoon(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = options{left: time.Hour}.scene(t.Context(), exec.CommandContext(t.Context(), program, roleArgument), 2, func(s *scene) error {
		return s.storm(t.Context(), &out, time.Second)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	_, rest, found := strings.Cut(out.String(), "certificates ended ")
	after, _, _ := strings.Cut(rest, " after the return")
	if ends, err := time.ParseDuration(after); !found || err != nil || ends > time.Hour || ends < 50*time.Minute || !strings.Contains(rest, "; 0 machines had one") {
		t.Errorf("the report does not say that the certificates ended after an hour:\n%s", out.String())
	}
}
