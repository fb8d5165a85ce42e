// Package ikeload makes load for IKE: machines that run the product's engine and driver with real cryptography, many at
// a time, on a wire in memory or on real sockets, and a sender that floods a responder with first messages of invented
// sources.
//
// Its invariant: what runs is the product's own code with the product's limits; only the datapath is replaced, by one
// that counts, so that IKE alone is measured. It leaves network namespaces to e2e/lab, figures and their comparison to
// e2e/bench, and what must hold to the tests.
package ikeload
