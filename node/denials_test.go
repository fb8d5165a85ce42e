package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func TestDenialsOutliveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := loadDenials(dir)
	if err != nil {
		t.Fatal(err)
	}
	if set, heard := d.Denials(); set.Len() != 0 || !heard.IsZero() {
		t.Fatalf("a new node denies %d and has heard at %v, want nobody and never", set.Len(), heard)
	}
	want, err := trust.NewDenials([]pki.UUID{{1}, {2}}, trust.Revocations{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := d.SetDenials(now, want); err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{time.Minute, 2 * time.Hour, 2*time.Hour + time.Minute} {
		if err := d.ConfirmDenials(now.Add(later)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := loadDenials(dir)
	if err != nil {
		t.Fatal(err)
	}
	set, heard := again.Denials()
	if set.Len() != 2 || !heard.Equal(now.Add(2*time.Hour)) {
		t.Errorf("after a restart %d are denied as of %v, want 2 as of %v", set.Len(), heard, now.Add(2*time.Hour))
	}
	for name, content := range map[string]string{"cut": `{"heard":"2030-01-01T`, "other": `{"content":"AAAA"}`, "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, denialsFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadDenials(dir); err == nil {
			t.Errorf("%s: a damaged file is taken for one that denies nobody", name)
		}
	}
}
