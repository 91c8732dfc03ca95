// Threads: PyTorch's own, by the address that Python hands over.
#pragma once
#include <stdint.h>

// Runs `body(data)` on up to `threads` threads at once and waits for all of them.
void run_on(int64_t threads, void (*body)(void*), void* data);
