//go:build amd64 && !purego

// AES-GCM on 512-bit vectors: four blocks in each, sixteen in each turn of the loops.
//
// GHASH (NIST SP 800-38D, 6.4) calls the first bit of a block the coefficient of x^0. With its octets reversed a block
// is an integer whose bit i is the coefficient of x^(127-i), and the carry-less product of two such integers has the
// coefficient of x^(254-i) in bit i: one place off. Every power of H is therefore kept divided by x, which brings the
// product to where bit i is the coefficient of x^(255-i). The powers stand in the order in which they are needed,
// H^36 first: n blocks, the last of which is multiplied by H^j, use the n entries before that of H^(j-1).
//
// The field's polynomial is x^128 + x^7 + x^2 + x + 1. So in that representation the lowest 64 bits w of a product
// vanish when w*2^128 + (w * POLY)*2^64 is added, which takes them to the places of lower powers; twice this leaves
// the upper 128 bits. Sums are taken before the reduction, sixteen blocks at a time.
//
// No branch and no address depends on the key, on the text or on the tag: only on lengths and the number of rounds.
// Whatever touches memory that may end before the vector does is masked, and masked octets are neither read nor
// written.

#include "textflag.h"
#include "go_asm.h"

// REVERSE reverses the octets of each block.
DATA reverse<>+0x00(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+0x08(SB)/8, $0x0001020304050607
DATA reverse<>+0x10(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+0x18(SB)/8, $0x0001020304050607
DATA reverse<>+0x20(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+0x28(SB)/8, $0x0001020304050607
DATA reverse<>+0x30(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+0x38(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $64

// 2^63 + 2^62 + 2^57: x^7 + x^2 + x + 1 without its last term, as 64 reflected bits.
DATA poly<>+0x00(SB)/8, $0xc200000000000000
DATA poly<>+0x08(SB)/8, $0
DATA poly<>+0x10(SB)/8, $0xc200000000000000
DATA poly<>+0x18(SB)/8, $0
DATA poly<>+0x20(SB)/8, $0xc200000000000000
DATA poly<>+0x28(SB)/8, $0
DATA poly<>+0x30(SB)/8, $0xc200000000000000
DATA poly<>+0x38(SB)/8, $0
GLOBL poly<>(SB), RODATA|NOPTR, $64

// 1/x = x^127 + x^6 + x + 1 as a reflected block.
DATA inverse<>+0x00(SB)/8, $0x0000000000000001
DATA inverse<>+0x08(SB)/8, $0xc200000000000000
GLOBL inverse<>(SB), RODATA|NOPTR, $16

// What the four blocks of the first vector add to the counter, and each vector to that of the one before.
DATA first<>+0x00(SB)/8, $0
DATA first<>+0x08(SB)/8, $0
DATA first<>+0x10(SB)/8, $1
DATA first<>+0x18(SB)/8, $0
DATA first<>+0x20(SB)/8, $2
DATA first<>+0x28(SB)/8, $0
DATA first<>+0x30(SB)/8, $3
DATA first<>+0x38(SB)/8, $0
GLOBL first<>(SB), RODATA|NOPTR, $64
DATA four<>+0x00(SB)/8, $4
DATA four<>+0x08(SB)/8, $0
DATA four<>+0x10(SB)/8, $4
DATA four<>+0x18(SB)/8, $0
DATA four<>+0x20(SB)/8, $4
DATA four<>+0x28(SB)/8, $0
DATA four<>+0x30(SB)/8, $4
DATA four<>+0x38(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $64

// Registers of seal and open:
//
//	Z0-Z3    AES states, then keystream, then output
//	Z4       counter blocks with their octets reversed, so that the counter is the lowest word of each;
//	         in the end, the state for the encrypted first counter block, with which the tag is masked
//	Z7-Z9    lower, middle and upper parts of the sum of products
//	X10      GHASH so far, to be added to the next block
//	Z11      reverse
//	Z12-Z15  ciphertext on its way into GHASH, octets reversed
//	Z16      powers of H
//	Z17-Z26  round keys 0 to 9, Z31 the last
//	Z5, Z6, Z27-Z30  products; Z27 is also round keys 10 to 13 of 256-bit keys
//
//	AX key  BX powers for the tail  DI destination  SI source  CX octets left  R8 nonce  R9 additional data
//	R10 its length  R11 rounds  R12 octets in all  R13 scratch

// COUNTER makes the next four counter blocks in z and adds the first round key.
#define COUNTER(z) \
	VPSHUFB Z11, Z4, z;          \
	VPXORQ  Z17, z, z;           \
	VPADDD  four<>(SB), Z4, Z4

// ROUND0 to ROUND4 are one round of AES on as many vectors. Those of the tail do it on the block for the tag too.
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

// ODD and EVEN encrypt the next sixteen counter blocks into Z0-Z3 and take Z12-Z15 into GHASH meanwhile: ODD reduces the
// sum, then starts a new one with sixteen blocks times the powers at p, and EVEN adds as many. What is known first comes
// first. last is a label of its own.
#define ODD(p, last) \
	COUNTER(Z0);                  \
	COUNTER(Z1);                  \
	COUNTER(Z2);                  \
	COUNTER(Z3);                  \
	ROUND4(Z18);                  \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9); \
	ROUND4(Z19);                  \
	FOLD;                         \
	ROUND4(Z20);                  \
	PAIR(Z14, 0x80+p);            \
	ROUND4(Z21);                  \
	ROUND4(Z22);                  \
	START(Z14, Z15, 0xc0+p);      \
	ROUND4(Z23);                  \
	VPXORQ Z10, Z12, Z12;         \
	ROUND4(Z24);                  \
	PAIR(Z12, 0x00+p);            \
	ROUND4(Z25);                  \
	ADD2(Z12, Z13, 0x40+p);       \
	ROUND4(Z26);                  \
	MOREROUNDS(last)
#define EVEN(p, last) \
	COUNTER(Z0);                  \
	COUNTER(Z1);                  \
	COUNTER(Z2);                  \
	COUNTER(Z3);                  \
	ROUND4(Z18);                  \
	PAIR(Z12, 0x00+p);            \
	ROUND4(Z19);                  \
	ROUND4(Z20);                  \
	ADD2(Z12, Z13, 0x40+p);       \
	ROUND4(Z21);                  \
	ROUND4(Z22);                  \
	PAIR(Z14, 0x80+p);            \
	ROUND4(Z23);                  \
	ROUND4(Z24);                  \
	ADD2(Z14, Z15, 0xc0+p);       \
	ROUND4(Z25);                  \
	ROUND4(Z26);                  \
	MOREROUNDS(last)
#define MOREROUNDS(last) \
	CMPQ R11, $10;                \
	JE   last;                    \
	KEY(10);                      \
	ROUND4(Z27);                  \
	KEY(11);                      \
	ROUND4(Z27);                  \
	KEY(12);                      \
	ROUND4(Z27);                  \
	KEY(13);                      \
	ROUND4(Z27);                  \
last: \
	LAST4

// HIGH and LOW are where the powers for ODD and EVEN are.
#define HIGH (vectorKey_powers+0x40)(AX)
#define LOW (vectorKey_powers+0x140)(AX)

// GROUPLOAD loads sixteen blocks at p for GHASH.
#define GROUPLOAD(p) \
	VMOVDQU64 0x00(p), Z12;  \
	VMOVDQU64 0x40(p), Z13;  \
	VMOVDQU64 0x80(p), Z14;  \
	VMOVDQU64 0xc0(p), Z15;  \
	VPSHUFB   Z11, Z12, Z12; \
	VPSHUFB   Z11, Z13, Z13; \
	VPSHUFB   Z11, Z14, Z14; \
	VPSHUFB   Z11, Z15, Z15

// PROLOGUE loads the round keys, makes the counter and takes the additional data into GHASH. The last products are left
// as a sum.
#define PROLOGUE(groups, vectors, last, done) \
	MOVL            (R8), R13;                                     \
	MOVQ            4(R8), R8;                                     \
	BSWAPL          R13;                                           \
	BSWAPQ          R8;                                            \
	SHLQ            $32, R13;                                      \
	MOVQ            R8, BX;                                        \
	SHRQ            $32, BX;                                       \
	ORQ             BX, R13;                                       \
	SHLQ            $32, R8;                                       \
	ORQ             $2, R8;                                        \
	VMOVQ           R8, X4;                                        \
	VPINSRQ         $1, R13, X4, X4;                               \
	VSHUFI64X2      $0, Z4, Z4, Z4;                                \
	VPADDD          first<>(SB), Z4, Z4;                           \
	VMOVDQU64       reverse<>(SB), Z11;                            \
	MOVQ            vectorKey_rounds(AX), R11;                     \
	MOVQ            R11, R13;                                      \
	SHLQ            $4, R13;                                       \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x00)(AX), Z17;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x10)(AX), Z18;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x20)(AX), Z19;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x30)(AX), Z20;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x40)(AX), Z21;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x50)(AX), Z22;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x60)(AX), Z23;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x70)(AX), Z24;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x80)(AX), Z25;           \
	VBROADCASTI32X4 (vectorKey_roundKeys+0x90)(AX), Z26;           \
	VBROADCASTI32X4 vectorKey_roundKeys(AX)(R13*1), Z31;           \
	VPXOR           X7, X7, X7;                                    \
	VPXOR           X8, X8, X8;                                    \
	VPXOR           X9, X9, X9;                                    \
	VPXOR           X10, X10, X10;                                 \
	MOVQ            R10, BX;                                       \
	TESTQ           BX, BX;                                        \
	JE              done;                                          \
	CMPQ            BX, $64;                                       \
	JBE             last;                                          \
	CMPQ            BX, $256;                                      \
	JBE             vectors;                                       \
groups: \
	GROUPLOAD(R9);                                                 \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9);                            \
	FOLD;                                                          \
	VPXORQ          Z10, Z12, Z12;                                 \
	PAIR(Z14, 0x80+LOW);                                           \
	START(Z14, Z15, 0xc0+LOW);                                     \
	PAIR(Z12, 0x00+LOW);                                           \
	ADD2(Z12, Z13, 0x40+LOW);                                      \
	ADDQ            $256, R9;                                      \
	SUBQ            $256, BX;                                      \
	CMPQ            BX, $256;                                      \
	JA              groups;                                        \
vectors: \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9);                            \
	FOLD;                                                          \
	CMPQ            BX, $64;                                       \
	JBE             last;                                          \
	VMOVDQU64       (R9), Z12;                                     \
	VPSHUFB         Z11, Z12, Z12;                                 \
	VPXORQ          Z10, Z12, Z12;                                 \
	VMOVDQU64       (vectorKey_powers+0x200)(AX), Z16;             \
	MULTIPLY(Z12, Z16, Z5, Z7, Z8, Z9);                            \
	ADDQ            $64, R9;                                       \
	SUBQ            $64, BX;                                       \
	JMP             vectors;                                       \
last: \
	MOVQ            $-1, R8;                                       \
	BZHIQ           BX, R8, R8;                                    \
	KMOVQ           R8, K1;                                        \
	VMOVDQU8.Z      (R9), K1, Z12;                                 \
	VPSHUFB         Z11, Z12, Z12;                                 \
	VPXORQ          Z10, Z12, Z12;                                 \
	ADDQ            $15, BX;                                       \
	ANDQ            $~15, BX;                                      \
	NEGQ            BX;                                            \
	VMOVDQU64       (vectorKey_powers+0x240)(AX)(BX*1), Z16;       \
	MULTIPLY(Z12, Z16, Z5, Z7, Z8, Z9);                            \
done: \
	MOVQ            CX, R12

// ALONE reduces the sum and starts an empty one.
#define ALONE \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9); \
	FOLD;                               \
	VPXOR X7, X7, X7;                   \
	VPXOR X8, X8, X8;                   \
	VPXOR X9, X9, X9

// TAILPOWERS points BX at the power for the first of the blocks in BX octets, the last of which takes H^2.
#define TAILPOWERS \
	ADDQ $15, BX;    \
	ANDQ $~15, BX;   \
	NEGQ BX;         \
	LEAQ (vectorKey_powers+0x230)(AX)(BX*1), BX

// TAILKEYS makes K1 the mask of the last vector, and adds the block of lengths times H to the sum.
#define TAILKEYS \
	LEAQ       -1(CX), R13;                       \
	ANDQ       $63, R13;                          \
	INCQ       R13;                               \
	MOVQ       $-1, R8;                           \
	BZHIQ      R13, R8, R8;                       \
	KMOVQ      R8, K1;                            \
	SHLQ       $3, R12;                           \
	SHLQ       $3, R10;                           \
	VMOVQ      R12, X15;                          \
	VPINSRQ    $1, R10, X15, X15

#define LENGTHS \
	ADD(Z15, (vectorKey_powers+0x230)(AX))

// TAGBLOCK makes the first counter block, for the tag.
#define TAGBLOCK \
	MOVL    $1, R13;           \
	VPINSRD $0, R13, X4, X4;   \
	VPSHUFB X11, X4, X4;       \
	VPXORQ  X17, X4, X4

// FINISH makes the tag in X0.
#define FINISH \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9);  \
	FOLD;                                \
	VPSHUFB X11, X10, X10;               \
	VPXOR   X4, X10, X0

// SEALFULL and SEALLAST encrypt one vector with the keystream z and leave the ciphertext in x for GHASH.
#define SEALFULL(offset, z, x) \
	VPXORQ    offset(SI), z, z;   \
	VMOVDQU64 z, offset(DI);      \
	VPSHUFB   Z11, z, x
#define SEALLAST(offset, z, x) \
	VMOVDQU8.Z offset(SI), K1, x; \
	VPXORQ     x, z, z;           \
	VMOVDQU8   z, K1, offset(DI); \
	VMOVDQU8.Z z, K1, z;          \
	VPSHUFB    Z11, z, x

// OPENFULL and OPENLAST decrypt one vector with the keystream z and leave the ciphertext in x for GHASH.
#define OPENFULL(offset, z, x) \
	VMOVDQU64 offset(SI), x;      \
	VPXORQ    x, z, z;            \
	VMOVDQU64 z, offset(DI);      \
	VPSHUFB   Z11, x, x
#define OPENLAST(offset, z, x) \
	VMOVDQU8.Z offset(SI), K1, x; \
	VPXORQ     x, z, z;           \
	VMOVDQU8   z, K1, offset(DI); \
	VPSHUFB    Z11, x, x

// SEALGROUP and OPENGROUP end a group and go on to the next.
#define SEALGROUP \
	SEALFULL(0x00, Z0, Z12); \
	SEALFULL(0x40, Z1, Z13); \
	SEALFULL(0x80, Z2, Z14); \
	SEALFULL(0xc0, Z3, Z15); \
	ADDQ $256, SI;           \
	ADDQ $256, DI;           \
	SUBQ $256, CX
#define OPENGROUP \
	VPXORQ    0x00(SI), Z0, Z0; \
	VPXORQ    0x40(SI), Z1, Z1; \
	VPXORQ    0x80(SI), Z2, Z2; \
	VPXORQ    0xc0(SI), Z3, Z3; \
	VMOVDQU64 Z0, 0x00(DI);     \
	VMOVDQU64 Z1, 0x40(DI);     \
	VMOVDQU64 Z2, 0x80(DI);     \
	VMOVDQU64 Z3, 0xc0(DI);     \
	ADDQ      $256, SI;         \
	ADDQ      $256, DI;         \
	SUBQ      $256, CX

// TAIL is all that follows the last whole group: up to 255 octets, the lengths, the tag.
#define TAIL(full, last, three, two, one, none, l4, l3, l2, l1, l0, out) \
	TAILKEYS;                       \
	CMPQ CX, $128;                  \
	JBE  two;                       \
	CMPQ CX, $192;                  \
	JBE  three;                     \
	COUNTER(Z0);                    \
	COUNTER(Z1);                    \
	COUNTER(Z2);                    \
	COUNTER(Z3);                    \
	TAGBLOCK;                       \
	LENGTHS;                        \
	ROUNDS(TAIL4, l4);              \
	full(0x00, Z0, Z12);            \
	VPXORQ Z10, Z12, Z12;           \
	full(0x40, Z1, Z13);            \
	full(0x80, Z2, Z14);            \
	last(0xc0, Z3, Z15);            \
	ADD(Z12, 0x00(BX));             \
	ADD(Z13, 0x40(BX));             \
	ADD(Z14, 0x80(BX));             \
	ADD(Z15, 0xc0(BX));             \
	JMP  out;                       \
three: \
	COUNTER(Z0);                    \
	COUNTER(Z1);                    \
	COUNTER(Z2);                    \
	TAGBLOCK;                       \
	LENGTHS;                        \
	ROUNDS(TAIL3, l3);              \
	full(0x00, Z0, Z12);            \
	VPXORQ Z10, Z12, Z12;           \
	full(0x40, Z1, Z13);            \
	last(0x80, Z2, Z14);            \
	ADD(Z12, 0x00(BX));             \
	ADD(Z13, 0x40(BX));             \
	ADD(Z14, 0x80(BX));             \
	JMP  out;                       \
two: \
	CMPQ CX, $64;                   \
	JBE  one;                       \
	COUNTER(Z0);                    \
	COUNTER(Z1);                    \
	TAGBLOCK;                       \
	LENGTHS;                        \
	ROUNDS(TAIL2, l2);              \
	full(0x00, Z0, Z12);            \
	VPXORQ Z10, Z12, Z12;           \
	last(0x40, Z1, Z13);            \
	ADD(Z12, 0x00(BX));             \
	ADD(Z13, 0x40(BX));             \
	JMP  out;                       \
one: \
	TESTQ CX, CX;                   \
	JE   none;                      \
	COUNTER(Z0);                    \
	TAGBLOCK;                       \
	LENGTHS;                        \
	ROUNDS(TAIL1, l1);              \
	last(0x00, Z0, Z12);            \
	VPXORQ Z10, Z12, Z12;           \
	ADD(Z12, 0x00(BX));             \
	JMP  out;                       \
none: \
	TAGBLOCK;                       \
	VPXOR X10, X15, X15;            \
	LENGTHS;                        \
	ROUNDS(TAIL0, l0);              \
out: \
	FINISH

// func seal(k *vectorKey, dst, src *byte, n int, nonce, additional *byte, m int)
TEXT ·seal(SB), NOSPLIT, $0-56
	MOVQ k+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ nonce+32(FP), R8
	MOVQ additional+40(FP), R9
	MOVQ m+48(FP), R10
	PROLOGUE(sealGroups, sealVectors, sealRest, sealCounter)
	CMPQ CX, $256
	JB   sealShort

	// The first group has no ciphertext before it.
	COUNTER(Z0)
	COUNTER(Z1)
	COUNTER(Z2)
	COUNTER(Z3)
	ROUND4(Z18)
	ROUND4(Z19)
	ROUND4(Z20)
	ROUND4(Z21)
	ROUND4(Z22)
	ROUND4(Z23)
	ROUND4(Z24)
	ROUND4(Z25)
	ROUND4(Z26)
	MOREROUNDS(sealFirstLast)
	JMP sealStore

sealGroup:
	ODD(HIGH, sealOddLast)
	SEALGROUP
	CMPQ CX, $256
	JB   sealEven
	EVEN(LOW, sealEvenLast)

sealStore:
	SEALGROUP
	CMPQ CX, $256
	JAE  sealGroup

	// The last group is the first one of a pair: its sum goes on with the tail.
	MOVQ CX, BX
	TAILPOWERS
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9)
	FOLD
	PAIR(Z14, -0x80(BX))
	START(Z14, Z15, -0x40(BX))
	VPXORQ Z10, Z12, Z12
	PAIR(Z12, -0x100(BX))
	ADD2(Z12, Z13, -0xc0(BX))
	VPXOR  X10, X10, X10
	JMP    sealTail

sealEven:
	PAIR(Z12, 0x00+LOW)
	ADD2(Z12, Z13, 0x40+LOW)
	PAIR(Z14, 0x80+LOW)
	ADD2(Z14, Z15, 0xc0+LOW)

sealShort:
	MOVQ CX, BX
	TAILPOWERS
	ALONE

sealTail:
	TAIL(SEALFULL, SEALLAST, sealThree, sealTwo, sealOne, sealNone, sealLast4, sealLast3, sealLast2, sealLast1, sealLast0, sealOut)
	VMOVDQU X0, (DI)(CX*1)
	VZEROUPPER
	RET

// func open(k *vectorKey, dst, src *byte, n int, nonce, additional *byte, m int) bool
TEXT ·open(SB), NOSPLIT, $0-57
	MOVQ k+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ nonce+32(FP), R8
	MOVQ additional+40(FP), R9
	MOVQ m+48(FP), R10
	PROLOGUE(openGroups, openVectors, openRest, openCounter)
	CMPQ CX, $256
	JB   openShort

openGroup:
	GROUPLOAD(SI)
	CMPQ CX, $512
	JB   openOdd
	ODD(HIGH, openOddLast)
	OPENGROUP
	GROUPLOAD(SI)
	EVEN(LOW, openEvenLast)
	OPENGROUP
	CMPQ CX, $256
	JAE  openGroup
	JMP  openShort

openOdd:
	// The last group is the first one of a pair: its sum goes on with the tail.
	LEAQ  -256(CX), BX
	TAILPOWERS
	ODD(-0x100(BX), openLast)
	OPENGROUP
	VPXOR X10, X10, X10
	JMP   openTail

openShort:
	MOVQ CX, BX
	TAILPOWERS
	ALONE

openTail:
	TAIL(OPENFULL, OPENLAST, openThree, openTwo, openOne, openNone, openLast4, openLast3, openLast2, openLast1, openLast0, openOut)
	VPXOR   (SI)(CX*1), X0, X0
	VPTEST  X0, X0
	SETEQ   ret+56(FP)
	VZEROUPPER
	RET

// EXPAND128 makes the next round key from X0 (FIPS 197, 5.2).
#define EXPAND128(constant, offset) \
	VAESKEYGENASSIST $constant, X0, X1;                      \
	VPSHUFD          $0xff, X1, X1;                          \
	VPSLLDQ          $4, X0, X2;                             \
	VPXOR            X2, X0, X0;                             \
	VPSLLDQ          $8, X0, X2;                             \
	VPXOR            X2, X0, X0;                             \
	VPXOR            X1, X0, X0;                             \
	VMOVDQU          X0, (vectorKey_roundKeys+offset)(AX)

// EXPAND256 makes the next round key into a from the two before, a and b. word is which word of b's substitution takes
// part: the last one rotated, or the last one as it is.
#define EXPAND256(constant, word, a, b, offset) \
	VAESKEYGENASSIST $constant, b, X2;                       \
	VPSHUFD          $word, X2, X2;                          \
	VPSLLDQ          $4, a, X3;                              \
	VPXOR            X3, a, a;                               \
	VPSLLDQ          $8, a, X3;                              \
	VPXOR            X3, a, a;                               \
	VPXOR            X2, a, a;                               \
	VMOVDQU          a, (vectorKey_roundKeys+offset)(AX)

// POWERS multiplies z by H^8, which Z1 holds, and stores it.
#define POWERS(z, offset) \
	MULTIPLY(z, Z1, Z5, Z7, Z8, Z9);          \
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9);       \
	VMOVDQA64 Z9, z;                          \
	VMOVDQU64 z, (vectorKey_powers+offset)(AX)

// func expand(k *vectorKey, key *byte)
TEXT ·expand(SB), NOSPLIT, $0-16
	MOVQ    k+0(FP), AX
	MOVQ    key+8(FP), SI
	MOVQ    vectorKey_rounds(AX), R11
	VMOVDQU (SI), X0
	VMOVDQU X0, vectorKey_roundKeys(AX)
	CMPQ    R11, $10
	JNE     expand256
	EXPAND128(0x01, 0x10)
	EXPAND128(0x02, 0x20)
	EXPAND128(0x04, 0x30)
	EXPAND128(0x08, 0x40)
	EXPAND128(0x10, 0x50)
	EXPAND128(0x20, 0x60)
	EXPAND128(0x40, 0x70)
	EXPAND128(0x80, 0x80)
	EXPAND128(0x1b, 0x90)
	EXPAND128(0x36, 0xa0)
	JMP     expandPowers

expand256:
	VMOVDQU 16(SI), X1
	VMOVDQU X1, (vectorKey_roundKeys+0x10)(AX)
	EXPAND256(0x01, 0xff, X0, X1, 0x20)
	EXPAND256(0x00, 0xaa, X1, X0, 0x30)
	EXPAND256(0x02, 0xff, X0, X1, 0x40)
	EXPAND256(0x00, 0xaa, X1, X0, 0x50)
	EXPAND256(0x04, 0xff, X0, X1, 0x60)
	EXPAND256(0x00, 0xaa, X1, X0, 0x70)
	EXPAND256(0x08, 0xff, X0, X1, 0x80)
	EXPAND256(0x00, 0xaa, X1, X0, 0x90)
	EXPAND256(0x10, 0xff, X0, X1, 0xa0)
	EXPAND256(0x00, 0xaa, X1, X0, 0xb0)
	EXPAND256(0x20, 0xff, X0, X1, 0xc0)
	EXPAND256(0x00, 0xaa, X1, X0, 0xd0)
	EXPAND256(0x40, 0xff, X0, X1, 0xe0)

expandPowers:
	// H is the encrypted block of zeros, so the first addition gives the first round key.
	VMOVDQU vectorKey_roundKeys(AX), X0
	LEAQ    (vectorKey_roundKeys+16)(AX), BX
	LEAQ    -1(R11), CX

expandRound:
	VAESENC     (BX), X0, X0
	ADDQ        $16, BX
	DECQ        CX
	JNE         expandRound
	VAESENCLAST (BX), X0, X0
	VPSHUFB     reverse<>(SB), X0, X0

	// H/x: one bit to the left, and what falls out at the top comes back as 1/x.
	VPSRLQ  $63, X0, X1
	VPSLLDQ $8, X1, X1
	VPSRAD  $31, X0, X2
	VPSHUFD $0xff, X2, X2
	VPAND   inverse<>(SB), X2, X2
	VPSLLQ  $1, X0, X0
	VPOR    X1, X0, X0
	VPXOR   X2, X0, X0

	// Z12 = H^4, H^3, H^2, H; each vector before it is H^4 times the next, made two at a time with H^8.
	MULTIPLY(X0, X0, X5, X7, X8, X9)
	REDUCE(poly<>(SB), X5, X7, X8, X9)
	VINSERTI128  $1, X0, Y9, Y12
	VINSERTI128  $1, X9, Y9, Y1
	MULTIPLY(Y12, Y1, Y5, Y7, Y8, Y9)
	REDUCE(poly<>(SB), Y5, Y7, Y8, Y9)
	VINSERTI64X4 $1, Y12, Z9, Z12
	VMOVDQU64    Z12, (vectorKey_powers+0x200)(AX)
	VSHUFI64X2   $0, Z12, Z12, Z1
	MULTIPLY(Z12, Z1, Z5, Z7, Z8, Z9)
	REDUCE(poly<>(SB), Z5, Z7, Z8, Z9)
	VMOVDQU64    Z9, (vectorKey_powers+0x1c0)(AX)
	VMOVDQA64    Z9, Z13
	VSHUFI64X2   $0, Z9, Z9, Z1
	POWERS(Z12, 0x180)
	POWERS(Z13, 0x140)
	POWERS(Z12, 0x100)
	POWERS(Z13, 0xc0)
	POWERS(Z12, 0x80)
	POWERS(Z13, 0x40)
	POWERS(Z12, 0x00)
	VZEROUPPER
	RET
