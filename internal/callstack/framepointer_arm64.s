//go:build gc && !sqllease_no_assembly

#include "go_asm.h"
#include "textflag.h"

// What makes the walk safe is said in framepointer.go.

// func walkFrames(panics, entry uintptr) (f fingerprint)
TEXT ·walkFrames(SB), NOSPLIT|NOFRAME, $0-48
	LDP  (g), (R4, R3)
	MOVD RSP, R2
	CMP  R4, R2
	BLO  unknown
	CMP  R3, R2
	BHS  unknown
	SUB  $16, R3
	SUB  $9, R2 // the first record may be a word below SP: its second word is at SP
	MOVD panics+0(FP), R9
	MOVD entry+8(FP), R5
	MOVD $const_mixA, R12
	MOVD $const_mixB, R13
	MOVD ZR, R10
	MOVD ZR, R11
	MOVD ZR, R6
	MOVD ZR, R7
	MOVD R29, R1
	SUB  R1, R3, R8

next:
	CBZ  R1, end
	CMP  R2, R1
	BLS  unknown
	CMP  R3, R1
	BHI  unknown
	TST  $7, R1
	BNE  unknown
	MOVD R1, R2
	LDP  (R1), (R1, R7)
	CMP  R9, R7
	BEQ  unknown
	EOR  R7, R10
	MUL  R12, R10
	ADD  R7, R11
	MUL  R13, R11
	ADD  $1, R6
	CMP  $const_deepestWalk, R6
	BLT  next
	CBZ  R1, end
	SUB  R3, R8 // the depth of what was walked
	ADD  R2, R8
	B    known

end:
	CMP R5, R7
	BEQ known

unknown:
	MOVD ZR, R10
	MOVD ZR, R11
	MOVD ZR, R6
	MOVD ZR, R8

known:
	MOVD R10, f_a+16(FP)
	MOVD R11, f_b+24(FP)
	MOVD R8, f_depth+32(FP)
	MOVD R6, f_frames+40(FP)
	RET

// func stackBounds() (lo, hi, sp uintptr)
TEXT ·stackBounds(SB), NOSPLIT|NOFRAME, $0-24
	LDP  (g), (R0, R1)
	MOVD RSP, R2
	MOVD R0, lo+0(FP)
	MOVD R1, hi+8(FP)
	MOVD R2, sp+16(FP)
	RET
