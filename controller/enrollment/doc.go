// Package enrollment decides who may get which certificate, and is the only caller of pki/ca for anybody but the
// controller itself.
//
// There are five claims to a certificate of a machine: a join token, a request that somebody approved, the machine's Kerberos
// account, the certificate that the machine has, and the word of an administrator. Each of them, whichever way it came, goes through the same steps, in
// this order (Desk.authorize):
//
//  1. the claim: a token known, its secret right, not expired, not used (by another key); a request approved; a proof
//     of an account that is for this request on this connection; a certificate believed by the caller;
//  2. the machine that the claim is for: in the directory, its account enabled; its entry gives the names;
//  3. the request: well formed, signed by its key, stating no name but those, and what the claim admits;
//  4. a place among those that are worked on at once; then the certificate is prepared, in the profile of the claim, and
//     linted. Up to here nothing has changed, and whatever fails leaves a token good;
//  5. the claim is spent: a token is redeemed for the key of the request, in one transaction, so that of many callers one
//     gets past this; and the machine has asked no more often than it may lately (in the long run: before step 3);
//  6. the intention is recorded, the certificate signed and recorded, unless key, caller or machine were shut out since
//     (controller/revocation), or a certificate of the machine was revoked since a person granted this one;
//  7. what the machine holds now is recorded: serial number, key, end, and what it was granted by. A renewal of what was
//     superseded meanwhile fails here. Only then is the certificate given away.
//
// A failure in step 5 or after leaves a token used, because a certificate may exist; but a machine that asks again with the
// same key, before the token ends, is answered: whoever holds secret and key is who the token was redeemed by, and the
// certificate says the same. No other key ever gets a second one.
//
// A machine that enrols anew supersedes what it held, in step 7: its certificates before are revoked, are not renewed any
// more, and neither the token nor the approval that their key came by counts again. A renewal supersedes nothing, because its
// answer may get lost.
//
// Invariants: names come from the directory and never from the requester; an error gives nothing away and changes
// nothing before step 5; a renewal is for the machine of the verified client certificate and no other; no limit depends on
// the address of the caller.
package enrollment
