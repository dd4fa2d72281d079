//go:build gc && !sqllease_no_assembly

#include "textflag.h"

// func goroutineWord(offset uintptr) uint64
TEXT ·goroutineWord(SB), NOSPLIT|NOFRAME, $0-16
	MOVD offset+0(FP), R0
	ADD  g, R0, R0
	MOVD (R0), R0
	MOVD R0, ret+8(FP)
	RET
