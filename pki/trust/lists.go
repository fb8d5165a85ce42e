package trust

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// readLists reads the frame that Bundle and Revocations share: a SEQUENCE of the format, the revision and two lists.
func readLists(der []byte, format uint64) (revision uint64, first, second cryptobyte.String, err error) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	var got uint64
	if !input.ReadASN1(&seq, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1Integer(&got) {
		return 0, nil, nil, errors.New("not one DER sequence that begins with a format")
	}
	if got != format {
		return 0, nil, nil, fmt.Errorf("format %d, this version reads %d", got, format)
	}
	if !seq.ReadASN1Integer(&revision) || !seq.ReadASN1(&first, cryptobyte_asn1.SEQUENCE) ||
		!seq.ReadASN1(&second, cryptobyte_asn1.SEQUENCE) || !seq.Empty() {
		return 0, nil, nil, errors.New("not a revision and two lists")
	}
	return revision, first, second, nil
}
