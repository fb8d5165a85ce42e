package proposal_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// The grammar of Windows (netsh ipsec, mmsecmethods and qmsecmethods), line by line: what is modern is read and printed in
// one form, what is not is refused with what takes its place, and nothing becomes weaker than it was written.
func TestGrammarTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(`
main  AES256-SHA384-ecp384                  => AES256-SHA384-ecp384
main  aes-gcm-256-sha384-p384               => AES-GCM-256-SHA384-ecp384
main  AES128-SHA256-dhgroup14               => AES128-SHA256-modp2048
main  3DES-SHA1-2                           => legacy: 3DES is never negotiated; use AES-GCM-256
main  DES-MD5-1                             => legacy: DES is never negotiated; use AES-GCM-256
main  AES256-MD5-ecp384                     => legacy: MD5 is never negotiated; use SHA256
main  AES256-SHA1-ecp384                    => legacy: SHA1 is never negotiated; use SHA256
main  AES256-SHA256-1                       => legacy: 1 is never negotiated; use x25519
main  AES256-SHA256-2                       => legacy: 2 is never negotiated; use x25519
main  AES256-SHA256-dhgroup2                => legacy: dhgroup2 is never negotiated; use x25519
main  AES256-SHA256                         => refused: is not of the form cipher-hash-group, as AES256-SHA384-ecp384
quick ESP[AES-256,SHA256]                   => ESP[AES-256,SHA256]
quick ESP[AES-GCM-256]:100000k/3600s        => ESP[AES-GCM-256]:100000k/3600s
quick ESP[AES-GCM-256]:3600s                => ESP[AES-GCM-256]:3600s
quick ESP[AES-GCM-256]:100000k              => ESP[AES-GCM-256]:100000k
quick ESP[AES-GCM-256]:/3600s               => refused: lifetime ":/3600s" is not of the form :100000k/3600s, :100000k or :3600s
quick ESP[None,SHA256]                      => ESP[None,SHA256]
quick ESP[None,None]                        => refused: None without integrity
quick ESP[3DES,MD5]:100000k/2000s           => legacy: 3DES is never negotiated; use AES-GCM-256
quick ESP[DES,SHA1]                         => legacy: DES is never negotiated; use AES-GCM-256
quick ESP[AES-256,SHA1]                     => legacy: SHA1 is never negotiated; use SHA256
quick AH[SHA1]:100000k/300s                 => legacy: AH is never negotiated; use ESP[None,SHA256] for integrity alone
quick AH[SHA1]+ESP[3DES,None]               => legacy: AH is never negotiated; use ESP[None,SHA256] for integrity alone
quick ESP:3DES-SHA1                         => refused: does not begin with ESP[
`), "\n")
	for _, line := range lines {
		offer, want, _ := strings.Cut(line, "=>")
		kind, text, _ := strings.Cut(strings.TrimSpace(offer), " ")
		text, want = strings.TrimSpace(text), strings.TrimSpace(want)
		var got string
		var err error
		if kind == "main" {
			var o proposal.IKE
			o, err = proposal.ParseIKE(text)
			got = o.String()
		} else {
			o, life, parseErr := proposal.ParseESP(text)
			got, err = o.String()+life.String(), parseErr
		}
		if wrong, ok := errors.AsType[*proposal.SyntaxError](err); ok {
			got = "refused: " + wrong.Reason
			if wrong.Legacy {
				got = "legacy: " + wrong.Reason
			}
		} else if err != nil {
			got = fmt.Sprintf("%T", err)
		}
		if got != want {
			t.Errorf("%-5s %-37s => %s\nwant %s", kind, text, got, want)
		}
	}
}
