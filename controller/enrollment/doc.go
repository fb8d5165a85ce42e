// Package enrollment decides who may get which certificate, and is the only caller of pki/ca for anybody but the
// controller itself.
//
// A join goes through these steps, in this order:
//
//  1. the token: known, the secret right, not expired, not used (by another key);
//  2. the machine that the token is bound to: in the directory, its account enabled; its entry gives the names;
//  3. the request: well formed, signed by its key, and stating no name but those;
//  4. the certificate is prepared and linted; up to here nothing has changed, and whatever fails leaves the token good;
//  5. the token is redeemed for the key of the request, in one transaction: of many callers one gets past this;
//  6. the intention is recorded, the certificate signed, recorded, and given away.
//
// A failure in step 6 leaves the token used, because a certificate may exist; but a machine that asks again with the
// same key, before the token ends, is answered: whoever holds secret and key is who the token was redeemed by, and the
// certificate says the same. No other key ever gets a second one.
//
// Invariants: names come from the directory and never from the requester; an error gives nothing away and changes
// nothing before step 5; a renewal is for the machine of the verified client certificate and no other.
package enrollment
