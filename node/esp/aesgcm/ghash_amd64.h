// GHASH (NIST SP 800-38D, 6.4) calls the first bit of a block the coefficient of x^0. With its octets reversed a block
// is an integer whose bit i is the coefficient of x^(127-i), and the carry-less product of two such integers has the
// coefficient of x^(254-i) in bit i: one place off. Every power of H is therefore kept divided by x, which brings the
// product to where bit i is the coefficient of x^(255-i). The powers stand in the order in which they are needed,
// H^36 first: n blocks, the last of which is multiplied by H^j, use the n entries before that of H^(j-1).
//
// The field's polynomial is x^128 + x^7 + x^2 + x + 1. So in that representation the lowest 64 bits w of a product
// vanish when w*2^128 + (w * poly)*2^64 is added, which takes them to the places of lower powers; twice this leaves
// the upper 128 bits.

// MULTIPLY starts the sum of products with x times the powers in p. Both may be vectors of any length.
#define MULTIPLY(x, p, t, low, middle, high) \
	VPCLMULQDQ $0x00, p, x, low;    \
	VPCLMULQDQ $0x11, p, x, high;   \
	VPCLMULQDQ $0x01, p, x, middle; \
	VPCLMULQDQ $0x10, p, x, t;      \
	VPXORQ     t, middle, middle

// ADD adds x times the four powers at p to the sum.
#define ADD(x, p) \
	VMOVDQU64  p, Z16;               \
	VPCLMULQDQ $0x00, Z16, x, Z5;    \
	VPCLMULQDQ $0x11, Z16, x, Z6;    \
	VPXORQ     Z5, Z7, Z7;           \
	VPXORQ     Z6, Z9, Z9;           \
	VPCLMULQDQ $0x01, Z16, x, Z5;    \
	VPCLMULQDQ $0x10, Z16, x, Z6;    \
	VPTERNLOGQ $0x96, Z5, Z6, Z8

// PAIR multiplies x by the four powers at p and keeps the products, of which START makes a sum with those of y and the
// powers at q, and ADD2 adds them all to the sum. x and y are lost.
#define PAIR(x, p) \
	VMOVDQU64  p, Z16;               \
	VPCLMULQDQ $0x00, Z16, x, Z5;    \
	VPCLMULQDQ $0x11, Z16, x, Z6;    \
	VPCLMULQDQ $0x01, Z16, x, Z28;   \
	VPCLMULQDQ $0x10, Z16, x, x
#define START(x, y, q) \
	VMOVDQU64  q, Z16;               \
	VPCLMULQDQ $0x00, Z16, y, Z7;    \
	VPCLMULQDQ $0x11, Z16, y, Z9;    \
	VPCLMULQDQ $0x01, Z16, y, Z8;    \
	VPCLMULQDQ $0x10, Z16, y, y;     \
	VPXORQ     Z5, Z7, Z7;           \
	VPXORQ     Z6, Z9, Z9;           \
	VPTERNLOGQ $0x96, Z28, x, Z8;    \
	VPXORQ     y, Z8, Z8
#define ADD2(x, y, q) \
	VMOVDQU64  q, Z16;               \
	VPCLMULQDQ $0x00, Z16, y, Z29;   \
	VPCLMULQDQ $0x11, Z16, y, Z30;   \
	VPTERNLOGQ $0x96, Z28, x, Z8;    \
	VPCLMULQDQ $0x01, Z16, y, Z28;   \
	VPCLMULQDQ $0x10, Z16, y, y;     \
	VPTERNLOGQ $0x96, Z5, Z29, Z7;   \
	VPTERNLOGQ $0x96, Z6, Z30, Z9;   \
	VPTERNLOGQ $0x96, Z28, y, Z8

// REDUCE brings the sum into 128 bits, in high. All are vectors of the same length as the constant's operand, m.
#define REDUCE(m, t, low, middle, high) \
	VPCLMULQDQ $0x00, m, low, t;           \
	VPSHUFD    $0x4e, low, low;            \
	VPTERNLOGQ $0x96, t, low, middle;      \
	VPCLMULQDQ $0x00, m, middle, t;        \
	VPSHUFD    $0x4e, middle, middle;      \
	VPTERNLOGQ $0x96, t, middle, high

// FOLD adds the four blocks of Z9 into X10.
#define FOLD \
	VEXTRACTI64X4 $1, Z9, Y5;  \
	VPXOR         Y5, Y9, Y9;  \
	VEXTRACTI128  $1, Y9, X5;  \
	VPXOR         X5, X9, X10
