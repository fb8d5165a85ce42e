//go:build amd64 && !purego

// AES-GCM on 512-bit vectors: four blocks in each, sixteen in each group.
//
// No branch and no address depends on the key, on the text or on the tag: only on lengths and the number of rounds.
// Whatever touches memory that may end before the vector does is masked, and masked octets are neither read nor
// written.

#include "textflag.h"
#include "go_asm.h"
#include "aes_amd64.h"
#include "ghash_amd64.h"

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

// ODD and EVEN encrypt the next sixteen counter blocks into Z0-Z3 and take Z12-Z15 into GHASH meanwhile: ODD reduces the
// sum, then starts a new one with sixteen blocks times the powers at p, and EVEN adds as many. What is known first comes
// first. last is a label of its own.
#define ODD(p, last) \
	COUNTER(Z0);                  \
	COUNTER(Z1);                  \
	COUNTER(Z2);                  \
	COUNTER(Z3);                  \
	ROUND4(Z18);                  \
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9); \
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
	VPADDD          ·first(SB), Z4, Z4;                           \
	VMOVDQU64       ·reverse(SB), Z11;                            \
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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9);                            \
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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9);                            \
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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9); \
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

// TAILKEYS makes K1 the mask of the last vector and Z15 the block of lengths, which LENGTHS, times H, adds to the sum.
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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9);  \
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

// TAIL is all that follows the last whole group: up to 255 octets, the lengths, the tag. All names but full and last are
// labels of its own.
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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9)
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
