package wire

// The types of PPK_ID (RFC 8784 5.1).
const (
	PPKIDOpaque byte = 1
	PPKIDFixed  byte = 2
)

// PPKID is what the initiator's PPK_IDENTITY notify holds: the name of a postquantum preshared key (RFC 8784 5.1).
//
//	+--------+----------------
//	|  type  |  identifier ...
//	+--------+----------------
type PPKID struct {
	Type byte
	Data []byte // not empty
}

// ParsePPKID reads the data of a PPK_IDENTITY notify.
func ParsePPKID(data []byte) (PPKID, error) {
	if len(data) < 2 || len(data) > 256 {
		return PPKID{}, syntaxf(0, "PPK_IDENTITY of %d octets", len(data))
	}
	return PPKID{data[0], data[1:]}, nil
}

// Append writes the data of a PPK_IDENTITY notify.
func (p PPKID) Append(dst []byte) []byte { return append(append(dst, p.Type), p.Data...) }
