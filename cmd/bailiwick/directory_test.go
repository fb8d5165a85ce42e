package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func TestDirectoryStatusTellsTheProtocol(t *testing.T) {
	now := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	var out bytes.Buffer
	err := printDirectory(&out, &adminv1.GetDirectoryStatusResponse{
		Kind: "ldap", Protocol: "polling", ProtocolNote: "the server does not offer it", Lag: durationpb.New(1500 * time.Millisecond), LastFullRead: now, LastRead: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"polling (the server does not offer it)", "at most 1.5s", "Read in full"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the status does not say %q:\n%s", want, out.String())
		}
	}
}
