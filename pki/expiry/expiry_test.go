package expiry_test

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/expiry"
)

// The latest end of each holder is told, what does not count has none, and a name cannot break the format.
func TestAppend(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	var f expiry.Figures
	for _, c := range []expiry.Certificate{
		{"machine", "ws1", expiry.Good, at(50)}, {"machine", "ws1", expiry.Good, at(70)}, {"machine", "ws1", "revoked", at(90)},
		{"machine", "kräuter\"\n", expiry.Good, at(10)}, {"root-ca", "of the journal", expiry.Good, at(98)}, {"admin", "anna", "expired", at(1)},
	} {
		f.Add(c)
	}
	f.AddAuthority("superseded", `CN=R\,O=x`, at(99), "CN=I", at(88))
	f.AddAuthority("retired", `CN=R\,O=x`, at(99), "CN=I1", at(188)) // the root stays
	f.AddAuthority("retired", "CN=R0", at(199), "CN=I0", at(188))
	f.AddAuthority("retired", "CN=R2", at(60), "CN=I2", at(59))
	f.AddAuthority("prepared", "CN=R2", at(60), "CN=I3", at(60))
	got := string(f.Append(nil))
	want := `# HELP bailiwick_certificate_not_after_timestamp_seconds When the latest good certificate ends, as a Unix time.
# TYPE bailiwick_certificate_not_after_timestamp_seconds gauge
bailiwick_certificate_not_after_timestamp_seconds{profile="issuing-ca",whose="CN=I"} 88
bailiwick_certificate_not_after_timestamp_seconds{profile="issuing-ca",whose="CN=I3"} 60
bailiwick_certificate_not_after_timestamp_seconds{profile="machine",whose="kräuter\"\n"} 10
bailiwick_certificate_not_after_timestamp_seconds{profile="machine",whose="ws1"} 70
bailiwick_certificate_not_after_timestamp_seconds{profile="root-ca",whose="CN=R2"} 60
bailiwick_certificate_not_after_timestamp_seconds{profile="root-ca",whose="CN=R\\,O=x"} 99
# HELP bailiwick_certificates How many certificates there are, by kind and status.
# TYPE bailiwick_certificates gauge
bailiwick_certificates{profile="admin",status="expired"} 1
bailiwick_certificates{profile="issuing-ca",status="good"} 2
bailiwick_certificates{profile="issuing-ca",status="retired"} 3
bailiwick_certificates{profile="machine",status="good"} 3
bailiwick_certificates{profile="machine",status="revoked"} 1
bailiwick_certificates{profile="root-ca",status="good"} 2
bailiwick_certificates{profile="root-ca",status="retired"} 1
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
