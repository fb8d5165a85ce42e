package wire

import "encoding/binary"

// ParseHashAlgorithms reads the data of a SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 4). Numbers that have no name
// here are kept: they harm nobody.
func ParseHashAlgorithms(data []byte) ([]HashAlgorithm, error) {
	if len(data)%2 != 0 {
		return nil, syntaxf(0, "SIGNATURE_HASH_ALGORITHMS of %d octets", len(data))
	}
	var hashes []HashAlgorithm
	for ; len(data) > 0; data = data[2:] {
		hashes = append(hashes, HashAlgorithm(binary.BigEndian.Uint16(data)))
	}
	return hashes, nil
}

// AppendHashAlgorithms writes the data of a SIGNATURE_HASH_ALGORITHMS notify.
func AppendHashAlgorithms(dst []byte, hashes []HashAlgorithm) []byte {
	for _, h := range hashes {
		dst = binary.BigEndian.AppendUint16(dst, uint16(h))
	}
	return dst
}
