#include <pthread.h>
#include <stdint.h>

void fromc_call(uintptr_t fp);

#if defined(__x86_64__)
__asm__(
	".text\n"
	".globl fromc_call\n"
	"fromc_call:\n"
	"	push %rbp\n"
	"	mov %rdi, %rbp\n"
	"	call fromcCalled@PLT\n"
	"	pop %rbp\n"
	"	ret\n"
	".section .note.GNU-stack,\"\",@progbits\n"
	".text\n");
#elif defined(__aarch64__)
__asm__(
	".text\n"
	".globl fromc_call\n"
	"fromc_call:\n"
	"	stp x29, x30, [sp, #-16]!\n"
	"	mov x29, x0\n"
	"	bl fromcCalled\n"
	"	ldp x29, x30, [sp], #16\n"
	"	ret\n");
#else
void fromcCalled(void);
void fromc_call(uintptr_t fp) { fromcCalled(); }
#endif

static void *begin(void *fp) {
	fromc_call((uintptr_t)fp);
	return 0;
}

void fromc_thread(uintptr_t fp) {
	pthread_t thread;
	if (pthread_create(&thread, 0, begin, (void *)fp) == 0) {
		pthread_join(thread, 0);
	}
}
