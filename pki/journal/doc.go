// Package journal is the hash-chained journal of a CA: what its records say, how each one is bound to all before it, and
// what an auditor concludes from them.
//
// A record is one line of JSON in one spelling. Its field "previous" is the SHA-256 of the line before, without the line
// feed, so the digest of the last line, the [Head], stands for the whole: whoever remembers a head can tell later whether
// anything up to there was changed, taken out or put in. An exported journal can be checked with sha256sum alone.
//
// Invariants: records are numbered from 1 without a gap; a serial number is intended once and certified at most once, after
// the intention; a line that is not octet for octet what this package writes is refused.
//
// It leaves to others: keeping the lines, atomically with what they tell of (controller/store), deciding what is issued
// (pki/ca), and remembering heads (people, and other machines). It is pure.
package journal
