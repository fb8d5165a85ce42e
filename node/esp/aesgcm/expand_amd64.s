//go:build amd64 && !purego

#include "textflag.h"
#include "go_asm.h"
#include "ghash_amd64.h"

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
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9);       \
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
	VPSHUFB     ·reverse(SB), X0, X0

	// H/x: one bit to the left, and what falls out at the top comes back as 1/x.
	VPSRLQ  $63, X0, X1
	VPSLLDQ $8, X1, X1
	VPSRAD  $31, X0, X2
	VPSHUFD $0xff, X2, X2
	VPAND   ·inverse(SB), X2, X2
	VPSLLQ  $1, X0, X0
	VPOR    X1, X0, X0
	VPXOR   X2, X0, X0

	// Z12 = H^4, H^3, H^2, H; each vector before it is H^4 times the next, made two at a time with H^8.
	MULTIPLY(X0, X0, X5, X7, X8, X9)
	REDUCE(·poly(SB), X5, X7, X8, X9)
	VINSERTI128  $1, X0, Y9, Y12
	VINSERTI128  $1, X9, Y9, Y1
	MULTIPLY(Y12, Y1, Y5, Y7, Y8, Y9)
	REDUCE(·poly(SB), Y5, Y7, Y8, Y9)
	VINSERTI64X4 $1, Y12, Z9, Z12
	VMOVDQU64    Z12, (vectorKey_powers+0x200)(AX)
	VSHUFI64X2   $0, Z12, Z12, Z1
	MULTIPLY(Z12, Z1, Z5, Z7, Z8, Z9)
	REDUCE(·poly(SB), Z5, Z7, Z8, Z9)
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
