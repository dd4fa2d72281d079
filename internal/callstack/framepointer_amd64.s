//go:build gc && !sqllease_no_assembly

#include "go_asm.h"
#include "textflag.h"

// What makes the walk safe is said in framepointer.go.

// func walkFrames(panics, entry uintptr) (f fingerprint)
TEXT ·walkFrames(SB), NOSPLIT|NOFRAME, $0-48
	MOVQ (TLS), AX
	MOVQ 8(AX), R8
	CMPQ SP, 0(AX)
	JCS  unknown
	CMPQ SP, R8
	JCC  unknown
	SUBQ $16, R8
	MOVQ SP, CX
	SUBQ $1, CX // the first record may be at SP
	MOVQ panics+0(FP), R9
	MOVQ $const_mixA, R12
	MOVQ $const_mixB, R13
	XORL R10, R10
	XORL R11, R11
	XORL SI, SI
	XORL DI, DI
	MOVQ BP, DX
	MOVQ R8, BX
	SUBQ DX, BX

next:
	TESTQ DX, DX
	JEQ   end
	CMPQ  DX, CX
	JLS   unknown
	CMPQ  DX, R8
	JHI   unknown
	TESTQ $7, DX
	JNE   unknown
	MOVQ  8(DX), DI
	CMPQ  DI, R9
	JEQ   unknown
	XORQ  DI, R10
	IMULQ R12, R10
	ADDQ  DI, R11
	IMULQ R13, R11
	MOVQ  DX, CX
	MOVQ  (DX), DX
	ADDQ  $1, SI
	CMPQ  SI, $const_deepestWalk
	JLT   next
	TESTQ DX, DX
	JEQ   end
	SUBQ  R8, BX // the depth of what was walked
	ADDQ  CX, BX
	JMP   known

end:
	CMPQ DI, entry+8(FP)
	JEQ  known

unknown:
	XORL R10, R10
	XORL R11, R11
	XORL SI, SI
	XORL BX, BX

known:
	MOVQ R10, f_a+16(FP)
	MOVQ R11, f_b+24(FP)
	MOVQ BX, f_depth+32(FP)
	MOVQ SI, f_frames+40(FP)
	RET

// func stackBounds() (lo, hi, sp uintptr)
TEXT ·stackBounds(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ (TLS), AX
	MOVQ 0(AX), CX
	MOVQ CX, lo+0(FP)
	MOVQ 8(AX), CX
	MOVQ CX, hi+8(FP)
	MOVQ SP, sp+16(FP)
	RET
