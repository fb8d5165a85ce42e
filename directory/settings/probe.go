package settings

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
)

// Location is the path or the URL of the source.
func (s CheckedSource) Location() string {
	if s.LDAP != nil {
		return s.LDAP.URL
	}
	return s.Path
}

// Probe tests the source as it is now: a server as ldap.Check does, a file by reading it. Nothing is changed.
func (s CheckedSource) Probe(ctx context.Context, now func() time.Time) []ldap.Finding {
	if s.LDAP == nil {
		return s.probeFile()
	}
	findings, snapshot := ldap.CheckTree(ctx, *s.LDAP, now)
	return append(findings, s.probeGuard(snapshot)...)
}

func (s CheckedSource) probeFile() []ldap.Finding {
	text, err := os.ReadFile(s.Path)
	if err != nil {
		return []ldap.Finding{{Subject: "file", Outcome: ldap.Failure, Detail: err.Error(), Hint: "check the path and the rights of the controller's user"}}
	}
	snapshot, err := ldif.Snapshot(s.Path, text, ldif.Options{Base: s.Base})
	if err != nil {
		return []ldap.Finding{{Subject: "file", Outcome: ldap.Failure, Detail: err.Error(), Hint: "correct the file; until then the last good state stays in force"}}
	}
	containers, machines, groups := snapshot.Len()
	out := []ldap.Finding{{Subject: "file", Outcome: ldap.OK, Detail: fmt.Sprintf("%d machines, %d groups, %d containers below %q", machines, groups, containers, snapshot.Base())}}
	for _, p := range snapshot.Problems() {
		out = append(out, ldap.Finding{Subject: "tree", Outcome: ldap.Warning, Detail: p.String(), Hint: "correct the entry"})
	}
	return append(out, s.probeGuard(snapshot)...)
}

// probeGuard tells of limits for containers that are not there; without a snapshot nobody knows.
func (s CheckedSource) probeGuard(snapshot *directory.Snapshot) []ldap.Finding {
	var out []ldap.Finding
	for _, c := range s.Containers {
		if snapshot == nil {
			break
		}
		if _, ok := snapshot.ContainerByDN(c.Container); !ok {
			out = append(out, ldap.Finding{
				Subject: "guard", Outcome: ldap.Warning, Detail: fmt.Sprintf("guard.containers has limits for %q, which is no container of the directory", c.Container),
				Hint: "correct the name: as it stands these limits guard nothing",
			})
		}
	}
	return out
}
