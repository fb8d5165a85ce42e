package proposal

import (
	"maps"
	"slices"
)

// legacy maps the normal form of names that old policies carry to what takes their place. They are understood so that
// the refusal can say why; none of them is ever negotiated.
var legacy = map[string]string{
	"DES":      "AES-GCM-256",
	"DES40":    "AES-GCM-256",
	"3DES":     "AES-GCM-256",
	"RC4":      "AES-GCM-256",
	"BLOWFISH": "AES-GCM-256",
	"CAST":     "AES-GCM-256",
	"MD5":      sha256,
	"SHA":      sha256,
	"SHA1":     sha256,
	"1":        "x25519",
	"2":        "x25519",
	"3":        "modp3072, ecp256 or x25519",
	"MODP768":  "x25519",
	"MODP1024": "x25519",
	"MODP1536": "x25519",
	"DHGROUP1": "x25519",
	"DHGROUP2": "x25519",
	"DHGROUP5": "x25519",
}

// aliases are other spellings of known names, in normal form.
var aliases = map[string]string{
	"CURVE25519": "X25519", "GROUP31": "X25519", "DHGROUP31": "X25519",
	"P256": "ECP256", "GROUP19": "ECP256", "DHGROUP19": "ECP256",
	"P384": "ECP384", "GROUP20": "ECP384", "DHGROUP20": "ECP384",
	"P521": "ECP521", "GROUP21": "ECP521", "DHGROUP21": "ECP521",
	"GROUP14": "MODP2048", "DHGROUP14": "MODP2048", "DH2048": "MODP2048",
	"GROUP15": "MODP3072", "DHGROUP15": "MODP3072",
	"GROUP16": "MODP4096", "DHGROUP16": "MODP4096",
	"GROUP36": "MLKEM768", "GROUP37": "MLKEM1024",
	"CHACHA20": "CHACHA20POLY1305", "NULL": "NONE",
	"AESCBC128": "AES128", "AESCBC192": "AES192", "AESCBC256": "AES256",
	"SHA2256": "SHA256", "SHA2384": "SHA384", "SHA2512": "SHA512",
}

// LegacyNames lists the names of algorithms and groups that are understood and never negotiated, sorted.
func LegacyNames() []string { return slices.Sorted(maps.Keys(legacy)) }
