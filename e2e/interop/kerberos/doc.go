// Package kerberos shows that machines get their certificates with accounts of real key distribution centres. It has tests
// alone.
package kerberos
