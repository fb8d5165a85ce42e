//go:build amd64 && !purego

#include "textflag.h"

// reverse reverses the octets of each block.
DATA ·reverse+0x00(SB)/8, $0x08090a0b0c0d0e0f
DATA ·reverse+0x08(SB)/8, $0x0001020304050607
DATA ·reverse+0x10(SB)/8, $0x08090a0b0c0d0e0f
DATA ·reverse+0x18(SB)/8, $0x0001020304050607
DATA ·reverse+0x20(SB)/8, $0x08090a0b0c0d0e0f
DATA ·reverse+0x28(SB)/8, $0x0001020304050607
DATA ·reverse+0x30(SB)/8, $0x08090a0b0c0d0e0f
DATA ·reverse+0x38(SB)/8, $0x0001020304050607
GLOBL ·reverse(SB), RODATA|NOPTR, $64

// 2^63 + 2^62 + 2^57: x^7 + x^2 + x + 1 without its last term, as 64 reflected bits.
DATA ·poly+0x00(SB)/8, $0xc200000000000000
DATA ·poly+0x08(SB)/8, $0
DATA ·poly+0x10(SB)/8, $0xc200000000000000
DATA ·poly+0x18(SB)/8, $0
DATA ·poly+0x20(SB)/8, $0xc200000000000000
DATA ·poly+0x28(SB)/8, $0
DATA ·poly+0x30(SB)/8, $0xc200000000000000
DATA ·poly+0x38(SB)/8, $0
GLOBL ·poly(SB), RODATA|NOPTR, $64

// 1/x = x^127 + x^6 + x + 1 as a reflected block.
DATA ·inverse+0x00(SB)/8, $0x0000000000000001
DATA ·inverse+0x08(SB)/8, $0xc200000000000000
GLOBL ·inverse(SB), RODATA|NOPTR, $16

// What the four blocks of the first vector add to the counter, and each vector to that of the one before.
DATA ·first+0x00(SB)/8, $0
DATA ·first+0x08(SB)/8, $0
DATA ·first+0x10(SB)/8, $1
DATA ·first+0x18(SB)/8, $0
DATA ·first+0x20(SB)/8, $2
DATA ·first+0x28(SB)/8, $0
DATA ·first+0x30(SB)/8, $3
DATA ·first+0x38(SB)/8, $0
GLOBL ·first(SB), RODATA|NOPTR, $64
DATA ·four+0x00(SB)/8, $4
DATA ·four+0x08(SB)/8, $0
DATA ·four+0x10(SB)/8, $4
DATA ·four+0x18(SB)/8, $0
DATA ·four+0x20(SB)/8, $4
DATA ·four+0x28(SB)/8, $0
DATA ·four+0x30(SB)/8, $4
DATA ·four+0x38(SB)/8, $0
GLOBL ·four(SB), RODATA|NOPTR, $64
