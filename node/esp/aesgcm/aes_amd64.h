// Counter mode with the registers of vector_amd64.s.

// COUNTER makes the next four counter blocks in z and adds the first round key.
#define COUNTER(z) \
	VPSHUFB Z11, Z4, z;          \
	VPXORQ  Z17, z, z;           \
	VPADDD  ·four(SB), Z4, Z4

// ROUND4 is one round of AES on four vectors, LAST4 the last one. TAIL0 to TAIL4 are one round, op, on as many vectors
// and on the block for the tag.
#define ROUND4(k) \
	VAESENC k, Z0, Z0; \
	VAESENC k, Z1, Z1; \
	VAESENC k, Z2, Z2; \
	VAESENC k, Z3, Z3
#define LAST4 \
	VAESENCLAST Z31, Z0, Z0; \
	VAESENCLAST Z31, Z1, Z1; \
	VAESENCLAST Z31, Z2, Z2; \
	VAESENCLAST Z31, Z3, Z3
#define TAIL0(op, k) \
	op k, Z4, Z4
#define TAIL1(op, k) \
	TAIL0(op, k) ; \
	op k, Z0, Z0
#define TAIL2(op, k) \
	TAIL1(op, k) ; \
	op k, Z1, Z1
#define TAIL3(op, k) \
	TAIL2(op, k) ; \
	op k, Z2, Z2
#define TAIL4(op, k) \
	TAIL3(op, k) ; \
	op k, Z3, Z3

// KEY loads round key n into Z27: those that only 256-bit keys have.
#define KEY(n) \
	VBROADCASTI32X4 (vectorKey_roundKeys+16*n)(AX), Z27

// ROUNDS is all of AES but the first addition. on is one of TAIL0 to TAIL4, last a label of its own.
#define ROUNDS(on, last) \
	on(VAESENC, Z18);     \
	on(VAESENC, Z19);     \
	on(VAESENC, Z20);     \
	on(VAESENC, Z21);     \
	on(VAESENC, Z22);     \
	on(VAESENC, Z23);     \
	on(VAESENC, Z24);     \
	on(VAESENC, Z25);     \
	on(VAESENC, Z26);     \
	CMPQ R11, $10;        \
	JE   last;            \
	KEY(10);              \
	on(VAESENC, Z27);     \
	KEY(11);              \
	on(VAESENC, Z27);     \
	KEY(12);              \
	on(VAESENC, Z27);     \
	KEY(13);              \
	on(VAESENC, Z27);     \
last: \
	on(VAESENCLAST, Z31)
