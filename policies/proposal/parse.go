package proposal

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxTextLength is the longest text of an offer in octets that is looked at.
const MaxTextLength = 200

// Life is the lifetime that an ESP offer asks for; the first limit that is reached counts. Zero means that the offer
// does not say.
type Life struct {
	Kilobytes uint64 // of 1024 octets
	Time      time.Duration
}

// Bytes returns the limit in octets.
func (l Life) Bytes() uint64 { return l.Kilobytes * 1024 }

// String prints ":100000k/3600s", or nothing for the zero value.
func (l Life) String() string {
	switch {
	case l == Life{}:
		return ""
	case l.Kilobytes == 0:
		return fmt.Sprintf(":%ds", int64(l.Time/time.Second))
	case l.Time == 0:
		return fmt.Sprintf(":%dk", l.Kilobytes)
	}
	return fmt.Sprintf(":%dk/%ds", l.Kilobytes, int64(l.Time/time.Second))
}

// cipherNames are the encryption algorithms with their key length, by normal form.
var cipherNames = map[string]struct {
	encryption Encryption
	bits       uint16
}{
	"NONE": {EncrNULL, 0}, "CHACHA20POLY1305": {EncrChaCha20Poly1305, 0},
	"AES128": {EncrAESCBC, 128}, "AES192": {EncrAESCBC, 192}, "AES256": {EncrAESCBC, 256},
	"AESGCM128": {EncrAESGCM16, 128}, "AESGCM192": {EncrAESGCM16, 192}, "AESGCM256": {EncrAESGCM16, 256},
	"AESGMAC128": {EncrNullAESGMAC, 128}, "AESGMAC192": {EncrNullAESGMAC, 192}, "AESGMAC256": {EncrNullAESGMAC, 256},
}

// String prints the offer as ParseIKE reads it: "AES256-SHA384-ecp384", "AES-GCM-256-SHA256-x25519".
func (o IKE) String() string {
	cipher := cipherText(o.Encryption, o.KeyBits)
	if o.Encryption == EncrAESCBC {
		cipher = strings.ReplaceAll(cipher, "-", "")
	}
	hash := o.PRF.String()
	if o.Integrity != IntegNone && o.Integrity.String() != hash {
		hash = o.Integrity.String() + "-PRF" + hash
	}
	return cipher + "-" + hash + "-" + o.KeyExchange().String()
}

// String prints the offer as ParseESP reads it, without a lifetime: "ESP[AES-GCM-256]", "ESP[AES-256,SHA256]-x25519".
func (o ESP) String() string {
	text := "ESP[" + cipherText(o.Encryption, o.KeyBits)
	if !o.Encryption.AEAD() {
		text += "," + o.Integrity.String()
	}
	text += "]"
	if o.Group != GroupNone {
		text += "-" + o.KeyExchange().String()
	}
	return text
}

func cipherText(e Encryption, bits uint16) string {
	if bits == 0 {
		return e.String()
	}
	return fmt.Sprintf("%s-%d", e, bits)
}

// ParseIKE reads an offer for an IKE SA:
//
//	offer  = cipher "-" hash [ "-PRF" hash ] "-" group
//	cipher = "AES128" / "AES192" / "AES256" / "AES-GCM-128" / "AES-GCM-192" / "AES-GCM-256" / "CHACHA20-POLY1305"
//	hash   = "SHA256" / "SHA384" / "SHA512"
//	group  = method *7( "+" method )
//	method = "x25519" / "ecp256" / "ecp384" / "ecp521" / "modp2048" / "modp3072" / "modp4096" / "mlkem768" / "mlkem1024"
//
// Methods behind the first one are additional key exchanges (RFC 9370): "x25519+mlkem768" is as strong as the stronger of
// the two. The hash serves as pseudo-random function and, where the cipher has none of its own, as integrity. Upper and
// lower case, and dashes within a name, do not matter. The error is a *SyntaxError.
func ParseIKE(text string) (IKE, error) {
	p := parser{text: text}
	if err := p.checkText(); err != nil {
		return IKE{}, err
	}
	first, additional, more := strings.Cut(text, "+")
	parts := strings.Split(first, "-")
	if n := len(parts); n > 3 && normal(parts[n-3]+parts[n-2]) == "MLKEM" { // the only group with dashes in its name
		parts = append(parts[:n-3], strings.Join(parts[n-3:], "-"))
	}
	if len(parts) < 3 {
		return IKE{}, p.fail("is not of the form cipher-hash-group, as AES256-SHA384-ecp384")
	}
	group, parts := parts[len(parts)-1], parts[:len(parts)-1]
	hash, parts := parts[len(parts)-1], parts[:len(parts)-1]
	prf := hash
	if rest, ok := strings.CutPrefix(normal(hash), "PRF"); ok && len(parts) >= 2 {
		prf = rest
		hash, parts = parts[len(parts)-1], parts[:len(parts)-1]
	}
	var o IKE
	cipher := strings.Join(parts, "-")
	if err := p.cipher(cipher, &o.Encryption, &o.KeyBits); err != nil {
		return IKE{}, err
	}
	var err error
	if o.PRF, err = lookup(&p, prfNames, prf, "hash"); err != nil {
		return IKE{}, err
	}
	switch {
	case !o.Encryption.AEAD():
		if o.Integrity, err = lookup(&p, integrityNames, hash, "hash"); err != nil {
			return IKE{}, err
		}
	case hash != prf:
		return IKE{}, p.fail("names an integrity hash beside %s, which has its own", cipher)
	}
	if o.Group, err = lookup(&p, groupNames, group, "group"); err != nil {
		return IKE{}, err
	}
	if o.Additional, err = p.additional(additional, more); err != nil {
		return IKE{}, err
	}
	return o, p.validated(o.Validate())
}

// ParseESP reads an offer for a Child SA:
//
//	offer = "ESP[" aead "]" [ "-" group ] life / "ESP[" cipher "," hash "]" [ "-" group ] life
//	life  = [ ":" kilobytes "k" [ "/" seconds "s" ] ] / ":" seconds "s"
//
// with the names of ParseIKE, and "None" or, as an aead, "AES-GMAC-128", "AES-GMAC-192" or "AES-GMAC-256" for no encryption. Both None are refused, and AH is not negotiated. The error is
// a *SyntaxError.
func ParseESP(text string) (ESP, Life, error) {
	p := parser{text: text}
	if err := p.checkText(); err != nil {
		return ESP{}, Life{}, err
	}
	if strings.HasPrefix(normal(text), "AH[") {
		return ESP{}, Life{}, p.legacy("AH is never negotiated; use ESP[None,SHA256] for integrity alone")
	}
	if len(text) < 4 || !strings.EqualFold(text[:4], "ESP[") {
		return ESP{}, Life{}, p.fail("does not begin with ESP[")
	}
	inner, rest, ok := strings.Cut(text[4:], "]")
	if !ok {
		return ESP{}, Life{}, p.fail("has no closing bracket")
	}
	var o ESP
	names := strings.Split(inner, ",")
	if err := p.cipher(names[0], &o.Encryption, &o.KeyBits); err != nil {
		return ESP{}, Life{}, err
	}
	var err error
	switch {
	case len(names) > 2:
		return ESP{}, Life{}, p.fail("names more than a cipher and a hash")
	case len(names) == 2 && normal(names[1]) != "NONE":
		if o.Integrity, err = lookup(&p, integrityNames, names[1], "hash"); err != nil {
			return ESP{}, Life{}, err
		}
	}
	before, life, _ := strings.Cut(rest, ":")
	if before != "" {
		name, ok := strings.CutPrefix(before, "-")
		if !ok {
			return ESP{}, Life{}, p.fail("has %q after the bracket, where -group or :lifetime may stand", before)
		}
		name, additional, more := strings.Cut(name, "+")
		if o.Group, err = lookup(&p, groupNames, name, "group"); err != nil {
			return ESP{}, Life{}, err
		}
		if o.Additional, err = p.additional(additional, more); err != nil {
			return ESP{}, Life{}, err
		}
	}
	l, err := p.life(rest[len(before):], life)
	if err != nil {
		return ESP{}, Life{}, err
	}
	return o, l, p.validated(o.Validate())
}

type parser struct{ text string }

// additional reads the methods behind the first plus sign; more tells whether there is one.
func (p *parser) additional(text string, more bool) (Additional, error) {
	var a Additional
	if !more {
		return a, nil
	}
	names := strings.Split(text, "+")
	if len(names) > len(a) {
		return a, p.fail("names %d additional groups, %d are possible", len(names), len(a))
	}
	for i, name := range names {
		g, err := lookup(p, groupNames, name, "group")
		if err != nil {
			return a, err
		}
		a[i] = g
	}
	return a, nil
}

func (p *parser) fail(format string, args ...any) error {
	return &SyntaxError{Text: p.text, Reason: fmt.Sprintf(format, args...)}
}

func (p *parser) legacy(format string, args ...any) error {
	return &SyntaxError{Text: p.text, Reason: fmt.Sprintf(format, args...), Legacy: true}
}

func (p *parser) checkText() error {
	if len(p.text) > MaxTextLength {
		text := p.text[:MaxTextLength]
		return &SyntaxError{Text: text, Reason: fmt.Sprintf("is longer than %d octets", MaxTextLength)}
	}
	for _, r := range p.text {
		if r <= ' ' || r > '~' {
			return p.fail("contains %q", r)
		}
	}
	return nil
}

// validated turns the error of Validate into one that quotes the text.
func (p *parser) validated(err error) error {
	if err == nil {
		return nil
	}
	return p.fail("%s", strings.TrimPrefix(err.Error(), ErrOffer.Error()+": "))
}

// normal is a name without case and dashes, aliases resolved.
func normal(name string) string {
	n := strings.ToUpper(strings.ReplaceAll(name, "-", ""))
	if a, ok := aliases[n]; ok {
		return a
	}
	return n
}

func (p *parser) cipher(name string, e *Encryption, bits *uint16) error {
	n := normal(name)
	if c, ok := cipherNames[n]; ok {
		*e, *bits = c.encryption, c.bits
		return nil
	}
	return p.unknown("cipher", name, n)
}

// lookup finds a name in the table of its kind.
func lookup[T comparable](p *parser, names map[T]string, name, kind string) (T, error) {
	n := normal(name)
	for v, known := range names {
		if normal(known) == n {
			return v, nil
		}
	}
	var none T
	return none, p.unknown(kind, name, n)
}

func (p *parser) unknown(kind, name, n string) error {
	if instead, ok := legacy[n]; ok {
		return p.legacy("%s is never negotiated; use %s", name, instead)
	}
	return p.fail("%q is not a %s", name, kind)
}

func (p *parser) life(suffix, text string) (Life, error) {
	if suffix == "" {
		return Life{}, nil
	}
	malformed := p.fail("lifetime %q is not of the form :100000k/3600s, :100000k or :3600s", suffix)
	var l Life
	kilobytes, seconds, both := strings.Cut(text, "/")
	if !both && strings.HasSuffix(text, "s") {
		kilobytes, seconds = "", text
	}
	if kilobytes != "" {
		digits, ok := strings.CutSuffix(kilobytes, "k")
		n, err := number(digits, 1<<50)
		if !ok || err != nil {
			return Life{}, malformed
		}
		l.Kilobytes = n
	}
	if seconds != "" {
		digits, ok := strings.CutSuffix(seconds, "s")
		n, err := number(digits, 1<<32)
		if !ok || err != nil {
			return Life{}, malformed
		}
		l.Time = time.Duration(n) * time.Second
	}
	if both && (kilobytes == "" || seconds == "") || text == "" {
		return Life{}, malformed
	}
	return l, nil
}

// number reads a decimal of plain digits, above zero and at most limit.
func number(digits string, limit uint64) (uint64, error) {
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read number: %w", err)
	}
	if n == 0 || n > limit || digits[0] == '+' {
		return 0, fmt.Errorf("number %d is not within 1 and %d", n, limit)
	}
	return n, nil
}
